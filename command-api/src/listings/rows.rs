//! Rows of listings and of their stock, locked for a command. Stock is locked before listings, each by id (PROTOCOL W1).

use events::{Listing, ListingId, Stock, UserId, VariantId};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::refusal::Refused;

/// A listing, locked until the transaction ends. `None` if it never was, or is gone.
pub async fn lock_listing(connection: &mut PgConnection, id: ListingId) -> Result<Option<Listing>, Refused> {
    let row = sqlx::query!(
        r#"select state as "state: Json<Listing>" from command.listings where id = $1 and deleted_at is null for update"#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.state.0))
}

/// The stock of all variants of these listings, locked in the one order that cannot deadlock.
pub async fn lock_stock_of(connection: &mut PgConnection, listings: &[ListingId]) -> Result<Vec<Stock>, Refused> {
    let ids: Vec<_> = listings.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "select variant_id, listing_id, seller_id, on_hand, reserved, low_stock_threshold, version, updated_at
           from command.stock where listing_id = any($1) and removed_at is null order by variant_id for update",
        &ids
    )
    .fetch_all(connection)
    .await?;
    let stock = rows.into_iter().map(|row| Stock {
        variant_id: VariantId(row.variant_id),
        listing_id: ListingId(row.listing_id),
        seller_id: UserId(row.seller_id),
        on_hand: row.on_hand,
        reserved: row.reserved,
        low_stock_threshold: row.low_stock_threshold,
        version: row.version.cast_unsigned(),
        updated_at: row.updated_at.into(),
    });
    Ok(stock.collect())
}
