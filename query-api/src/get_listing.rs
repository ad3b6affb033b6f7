//! Shows one listing: from this process, else from Redis, else from Postgres.

use std::sync::Arc;

use events::{AggregateKey, Listing, ListingId};
use service::problem::{Kind, Refusal};
use sqlx::types::Json;
use views::listing_page::{ListingContent, PageWrite};

use crate::app::App;
use crate::consistency::{Consistency, Freshness};
use crate::page_cache::CachedListing;
use crate::store_guard::StoreError;
use crate::stored_aggregate::{self, ReadError, ShownAggregate, StoredAggregate, unreadable};
use crate::visibility::{self, Viewer};

#[derive(Debug, thiserror::Error)]
pub enum GetListingError {
    /// It never existed, is deleted, or is not for this viewer. The answer does not tell which.
    #[error("There is no listing {0}")]
    NoListing(ListingId),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Refusal for GetListingError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoListing(_) => Kind::NotFound,
            Self::Read(error) => error.kind(),
        }
    }
}

pub async fn get_listing(
    app: &App,
    viewer: Viewer,
    id: ListingId,
    consistency: &Consistency,
) -> Result<ShownAggregate, GetListingError> {
    let required = consistency.version_of(AggregateKey::listing(id));
    let (page, freshness) = read_page(app, id, required, consistency).await?;
    let shown = page.content.as_ref().and_then(|listing| {
        let audience = visibility::by_id(viewer, listing.into())?;
        Some(ShownAggregate { version: page.version, body: listing.body.clone(), audience, freshness })
    });
    shown.ok_or(GetListingError::NoListing(id))
}

/// Reads the page of the `required` version or a newer one. Callers must apply visibility to it.
pub async fn read_page(
    app: &App,
    id: ListingId,
    required: u64,
    consistency: &Consistency,
) -> Result<(Arc<CachedListing>, Freshness), ReadError> {
    if let Some(page) = app.pages.get(id, required).await {
        return Ok((page, Freshness::Fresh));
    }
    // On the heap, and only after a miss: a read that may use three stores is thousands of bytes, which every layer above would move.
    if required == 0 {
        let page = app.pages.load(id, Box::pin(stored_aggregate::load(app, id, 0))).await?;
        return Ok((page, Freshness::Fresh));
    }
    // A load that other queries share may have started before the required write.
    let (page, freshness) = Box::pin(stored_aggregate::read(app, id, required, consistency)).await?;
    Ok((Arc::new(page), freshness))
}

impl StoredAggregate for ListingContent {
    async fn from_postgres(app: &App, generation: i32, id: ListingId) -> Result<Option<PageWrite>, StoreError> {
        let statement = sqlx::query!(
            r#"select version, listing as "listing: Json<Listing>" from projection.listings where generation = $1 and id = $2"#,
            app.generations.listing_catalog(),
            id.0
        );
        let row = app.database.call("get_listing", statement.fetch_optional(&app.database.pool)).await?;
        row.map(|row| match row.listing {
            None => Ok(PageWrite::listing_gone(generation, id, row.version.cast_unsigned())),
            Some(Json(listing)) => PageWrite::listing(generation, &listing).map_err(unreadable),
        })
        .transpose()
    }
}
