//! Shows how many pieces of a variant are left, to those who may see its listing: from Redis, else from Postgres.

use events::{AggregateKey, VariantId};
use service::problem::{Kind, Refusal};
use views::listing_page::{PageWrite, StockContent};
use views::stock_levels::StockLevelRow;

use crate::app::App;
use crate::consistency::{Consistency, Freshness};
use crate::get_listing::read_page;
use crate::store_guard::StoreError;
use crate::stored_aggregate::{self, ReadError, ShownAggregate, StoredAggregate, unreadable};
use crate::visibility::{self, Viewer};

#[derive(Debug, thiserror::Error)]
pub enum GetStockError {
    /// It never existed, is removed, or its listing is not for this viewer. The answer does not tell which.
    #[error("There is no variant {0}")]
    NoVariant(VariantId),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Refusal for GetStockError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoVariant(_) => Kind::NotFound,
            Self::Read(error) => error.kind(),
        }
    }
}

/// Reads the stock, then its listing. They are two aggregates, so the two may be of different moments.
pub async fn get_stock(
    app: &App,
    viewer: Viewer,
    id: VariantId,
    consistency: &Consistency,
) -> Result<ShownAggregate, GetStockError> {
    let required = consistency.version_of(AggregateKey::stock(id));
    let (stock, freshness) = stored_aggregate::read::<StockContent>(app, id, required, consistency).await?;
    let Some(content) = stock.content else { return Err(GetStockError::NoVariant(id)) };

    let required = consistency.version_of(AggregateKey::listing(content.listing_id));
    let (listing, listing_freshness) = read_page(app, content.listing_id, required, consistency).await?;
    let audience = listing.content.as_ref().and_then(|listing| visibility::by_id(viewer, listing.into()));
    let audience = audience.ok_or(GetStockError::NoVariant(id))?;
    let freshness = if freshness == Freshness::Fresh { listing_freshness } else { freshness };
    Ok(ShownAggregate { version: stock.version, body: content.body, audience, freshness })
}

impl StoredAggregate for StockContent {
    async fn from_postgres(app: &App, generation: i32, id: VariantId) -> Result<Option<PageWrite>, StoreError> {
        let statement = sqlx::query_as!(
            StockLevelRow,
            "select variant_id, version, removed, listing_id, seller_id, on_hand, reserved, low_stock_threshold, updated_at
               from projection.stock_levels where generation = $1 and variant_id = $2",
            app.generations.stock_levels(),
            id.0
        );
        let row = app.database.call("get_stock", statement.fetch_optional(&app.database.pool)).await?;
        row.map(|row| match row.stock() {
            None => Ok(PageWrite::stock_gone(generation, id, row.version.cast_unsigned())),
            Some(stock) => PageWrite::stock(generation, &stock).map_err(unreadable),
        })
        .transpose()
    }
}
