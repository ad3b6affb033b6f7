//! Shows one listing: from this process, else Redis, else Postgres, whichever is the first to have what the caller has seen.

use std::sync::Arc;

use events::{AggregateKey, Listing, ListingId};
use service::problem::{Kind, Refusal};
use sqlx::types::Json;
use views::listing_page::Write;

use crate::app::App;
use crate::consistency::{Consistency, Freshness, Next, NotYet};
use crate::dependency::Unanswered;
use crate::page::{Page, PresentPage};
use crate::visibility::{self, Audience, Viewer};

/// A listing's page, for one viewer.
#[derive(Debug)]
pub struct ShownListing {
    page: Arc<Page>,
    pub audience: Audience,
    pub freshness: Freshness,
}

#[derive(Debug, thiserror::Error)]
pub enum GetListingError {
    /// Never there, deleted, or not for this viewer: nobody can tell which.
    #[error("There is no listing {0}")]
    NoListing(ListingId),
    #[error(transparent)]
    NotYet(#[from] NotYet),
    #[error(transparent)]
    Unanswered(#[from] Arc<Unanswered>),
}

impl From<Unanswered> for GetListingError {
    fn from(error: Unanswered) -> Self {
        Self::Unanswered(Arc::new(error))
    }
}

impl Refusal for GetListingError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoListing(_) => Kind::NotFound,
            Self::NotYet(error) => error.kind(),
            Self::Unanswered(error) => error.kind(),
        }
    }
}

impl ShownListing {
    /// What is shown; a page that is gone is never made into one of these.
    #[must_use]
    pub fn page(&self) -> Option<&PresentPage> {
        match &*self.page {
            Page::Present(page) => Some(page),
            Page::Gone { .. } => None,
        }
    }
}

pub async fn get_listing(
    app: &App,
    viewer: Viewer,
    id: ListingId,
    consistency: &Consistency,
) -> Result<ShownListing, GetListingError> {
    let wanted = consistency.version_of(AggregateKey::listing(id));
    let (page, freshness) = read_page(app, id, wanted, consistency).await?;
    let audience = match &*page {
        Page::Present(present) => visibility::by_id(viewer, present.standing),
        Page::Gone { .. } => None,
    };
    match audience {
        Some(audience) => Ok(ShownListing { page, audience, freshness }),
        None => Err(GetListingError::NoListing(id)),
    }
}

/// The page of version `wanted` or newer, before visibility.
pub(crate) async fn read_page(
    app: &App,
    id: ListingId,
    wanted: u64,
    consistency: &Consistency,
) -> Result<(Arc<Page>, Freshness), GetListingError> {
    if let Some(page) = app.pages.get(id, wanted) {
        return Ok((page, Freshness::Fresh));
    }
    // On the heap, and only now: what may ask three stores is thousands of bytes, which every layer above would move.
    if wanted == 0 {
        let page = app.pages.load(id, Box::pin(load_page(app, id, 0))).await?;
        return Ok((page, Freshness::Fresh));
    }
    Box::pin(await_version(app, id, wanted, consistency)).await
}

/// A load that others share may have begun before the write was seen; this reader asks the stores itself.
async fn await_version(
    app: &App,
    id: ListingId,
    wanted: u64,
    consistency: &Consistency,
) -> Result<(Arc<Page>, Freshness), GetListingError> {
    let mut patience = consistency.patience();
    loop {
        let page = load_page(app, id, wanted).await?;
        if page.version() >= wanted {
            return Ok((Arc::new(page), Freshness::Fresh));
        }
        if let Next::MakeDo(freshness) = patience.pause().await? {
            return Ok((Arc::new(page), freshness));
        }
    }
}

/// From Redis, if what it holds is new enough; else from Postgres, which then fills Redis.
async fn load_page(app: &App, id: ListingId, wanted: u64) -> Result<Page, Unanswered> {
    let generation = app.generations.listing_page();
    let held = app.redis.listing(generation, id).await;
    let older = match held {
        Ok(Some(held)) => {
            let page = Page::from(held);
            if page.version() >= wanted {
                app.metrics.redis.hits.inc();
                return Ok(page);
            }
            Some(page)
        }
        Ok(None) | Err(_) => None,
    };
    app.metrics.redis.misses.inc();

    match (Box::pin(stored_page(app, generation, id)).await, older) {
        (Ok(page), Some(older)) if page.version() < older.version() => Ok(older),
        (Ok(page), _) => Ok(page),
        // Older than wanted, but there; the caller may be content with it.
        (Err(_), Some(older)) => Ok(older),
        (Err(error), None) => Err(error),
    }
}

async fn stored_page(app: &App, generation: i32, id: ListingId) -> Result<Page, Unanswered> {
    let statement =
        sqlx::query!(r#"select version, listing as "listing: Json<Listing>" from projection.listings where id = $1"#, id.0);
    let Some(row) = app.database.ask("get_listing", statement.fetch_optional(&app.database.pool)).await? else {
        return Ok(Page::NEVER_WAS);
    };
    let version = row.version.cast_unsigned();
    let unreadable = |error: serde_json::Error| Unanswered::Refused { name: "postgres", source: error.into() };
    let (page, write) = match row.listing {
        None => (Page::Gone { version }, Write::listing_gone(generation, id, version)),
        Some(Json(listing)) => {
            (Page::render(&listing).map_err(unreadable)?, Write::listing(generation, &listing).map_err(unreadable)?)
        }
    };
    app.redis.fill(write).await;
    Ok(page)
}
