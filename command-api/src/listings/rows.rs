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

/// The listings of these sellers with these external ids, as far as there are any. Not locked.
pub async fn find_by_external_id(connection: &mut PgConnection, keys: &[(UserId, String)]) -> Result<Vec<ListingId>, Refused> {
    let (sellers, names): (Vec<_>, Vec<_>) = keys.iter().map(|(seller, name)| (seller.0, name.as_str())).unzip();
    let ids = sqlx::query_scalar!(
        "select id from unnest($1::uuid[], $2::text[]) as asked (seller_id, external_id)
           join command.listings using (seller_id, external_id) where deleted_at is null",
        &sellers,
        &names as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(ListingId).collect())
}

/// Several listings, locked in the one order that cannot deadlock. Those that are gone meanwhile are not among them.
pub async fn lock_listings(connection: &mut PgConnection, ids: &[ListingId]) -> Result<Vec<Listing>, Refused> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"select state as "state: Json<Listing>" from command.listings where id = any($1) and deleted_at is null order by id for update"#,
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.state.0).collect())
}

/// A listing as it is now, not locked.
pub async fn read_listing(connection: &mut PgConnection, id: ListingId) -> Result<Option<Listing>, Refused> {
    let row = sqlx::query!(
        r#"select state as "state: Json<Listing>" from command.listings where id = $1 and deleted_at is null"#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.state.0))
}
