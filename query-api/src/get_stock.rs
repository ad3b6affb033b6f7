//! Says how many pieces of a variant are left, to whoever may see its listing.

use std::sync::Arc;

use bytes::Bytes;
use events::stock::StockLevel;
use events::{AggregateKey, ListingId, VariantId};
use service::problem::{Kind, Refusal};
use views::listing_page::{HeldStock, Write};
use views::stock_levels::Row;

use crate::app::App;
use crate::consistency::{Consistency, Freshness, Next, NotYet};
use crate::dependency::Unanswered;
use crate::get_listing::{GetListingError, read_page};
use crate::page::Page;
use crate::visibility::{self, Audience, Viewer};

/// A variant's stock, for one viewer.
#[derive(Debug)]
pub struct ShownStock {
    pub version: u64,
    /// JSON of a [`StockLevel`].
    pub body: Bytes,
    pub audience: Audience,
    pub freshness: Freshness,
}

#[derive(Debug, thiserror::Error)]
pub enum GetStockError {
    /// Never there, removed, or its listing is not for this viewer: nobody can tell which.
    #[error("There is no variant {0}")]
    NoVariant(VariantId),
    #[error(transparent)]
    NotYet(#[from] NotYet),
    #[error(transparent)]
    Unanswered(#[from] Arc<Unanswered>),
}

impl From<Unanswered> for GetStockError {
    fn from(error: Unanswered) -> Self {
        Self::Unanswered(Arc::new(error))
    }
}

impl Refusal for GetStockError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoVariant(_) => Kind::NotFound,
            Self::NotYet(error) => error.kind(),
            Self::Unanswered(error) => error.kind(),
        }
    }
}

/// A stock before visibility. `Gone` with version 0 was never there.
enum Level {
    Gone { version: u64 },
    Present { version: u64, listing: ListingId, body: Bytes },
}

impl Level {
    fn version(&self) -> u64 {
        match self {
            Self::Gone { version } | Self::Present { version, .. } => *version,
        }
    }
}

impl From<HeldStock> for Level {
    fn from(held: HeldStock) -> Self {
        match held {
            HeldStock::Gone { version } => Self::Gone { version },
            HeldStock::Page(page) => Self::Present { version: page.version, listing: page.listing_id, body: page.body },
        }
    }
}

/// The stock and its listing may each be of the moment they were read: they are two aggregates.
pub async fn get_stock(app: &App, viewer: Viewer, id: VariantId, consistency: &Consistency) -> Result<ShownStock, GetStockError> {
    let (level, level_is) = read_level(app, id, consistency).await?;
    let Level::Present { version, listing, body } = level else { return Err(GetStockError::NoVariant(id)) };
    let wanted = consistency.version_of(AggregateKey::listing(listing));
    let (page, page_is) = read_page(app, listing, wanted, consistency).await.map_err(|error| match error {
        GetListingError::NoListing(_) => GetStockError::NoVariant(id),
        GetListingError::NotYet(error) => GetStockError::NotYet(error),
        GetListingError::Unanswered(error) => GetStockError::Unanswered(error),
    })?;
    let audience = match &*page {
        Page::Present(page) => visibility::by_id(viewer, page.standing),
        Page::Gone { .. } => None,
    };
    let audience = audience.ok_or(GetStockError::NoVariant(id))?;
    let freshness = if level_is == Freshness::Fresh { page_is } else { level_is };
    Ok(ShownStock { version, body, audience, freshness })
}

async fn read_level(app: &App, id: VariantId, consistency: &Consistency) -> Result<(Level, Freshness), GetStockError> {
    let wanted = consistency.version_of(AggregateKey::stock(id));
    let mut patience = consistency.patience();
    loop {
        let level = load_level(app, id, wanted).await?;
        if level.version() >= wanted {
            return Ok((level, Freshness::Fresh));
        }
        if let Next::MakeDo(freshness) = patience.pause().await? {
            return Ok((level, freshness));
        }
    }
}

/// From Redis, if what it holds is new enough; else from Postgres, which then fills Redis.
async fn load_level(app: &App, id: VariantId, wanted: u64) -> Result<Level, Unanswered> {
    let generation = app.generations.listing_page();
    let older = match app.redis.stock(generation, id).await {
        Ok(Some(held)) => {
            let level = Level::from(held);
            if level.version() >= wanted {
                app.metrics.redis.hits.inc();
                return Ok(level);
            }
            Some(level)
        }
        Ok(None) | Err(_) => None,
    };
    app.metrics.redis.misses.inc();

    match (stored_level(app, generation, id).await, older) {
        (Ok(level), Some(older)) if level.version() < older.version() => Ok(older),
        (Ok(level), _) => Ok(level),
        // Older than wanted, but there; the caller may be content with it.
        (Err(_), Some(older)) => Ok(older),
        (Err(error), None) => Err(error),
    }
}

async fn stored_level(app: &App, generation: i32, id: VariantId) -> Result<Level, Unanswered> {
    let statement = sqlx::query_as!(
        Row,
        "select variant_id, version, removed, listing_id, seller_id, on_hand, reserved, low_stock_threshold, updated_at
           from projection.stock_levels where variant_id = $1",
        id.0
    );
    let Some(row) = app.database.ask("get_stock", statement.fetch_optional(&app.database.pool)).await? else {
        return Ok(Level::Gone { version: 0 });
    };
    let unreadable = |error: serde_json::Error| Unanswered::Refused { name: "postgres", source: error.into() };
    let version = row.version.cast_unsigned();
    let (level, write) = match row.stock() {
        None => (Level::Gone { version }, Write::stock_gone(generation, id, version)),
        Some(stock) => {
            let body = serde_json::to_vec(&StockLevel::from(&stock)).map_err(unreadable)?.into();
            let level = Level::Present { version, listing: stock.listing_id, body };
            (level, Write::stock(generation, &stock).map_err(unreadable)?)
        }
    };
    app.redis.fill(write).await;
    Ok(level)
}
