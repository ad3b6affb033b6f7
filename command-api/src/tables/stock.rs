//! Rows of `command.stock`. The stock of a variant that is gone keeps its row; it is never found.

use chrono::{DateTime, Utc};
use events::{ListingId, Stock, UserId, VariantId};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::command::CommandError;
use crate::journal::{StateRow, StateTable, column};

impl StateTable for Stock {
    fn version_mut(&mut self) -> &mut u64 {
        &mut self.version
    }

    fn push_upsert(rows: Vec<StateRow<'_, Self>>, now: DateTime<Utc>, statement: &mut QueryBuilder<Postgres>) {
        statement.push(
            "
    insert into command.stock (variant_id, listing_id, seller_id, on_hand, reserved, low_stock_threshold, version,
                               updated_at, removed_at)
    select * from unnest(",
        );
        let mut columns = statement.separated(", ");
        columns.push_bind(column(&rows, |row| row.state.variant_id.0)).push_unseparated("::uuid[]");
        columns.push_bind(column(&rows, |row| row.state.listing_id.0)).push_unseparated("::uuid[]");
        columns.push_bind(column(&rows, |row| row.state.seller_id.0)).push_unseparated("::uuid[]");
        columns.push_bind(column(&rows, |row| row.state.on_hand)).push_unseparated("::bigint[]");
        columns.push_bind(column(&rows, |row| row.state.reserved)).push_unseparated("::bigint[]");
        columns.push_bind(column(&rows, |row| row.state.low_stock_threshold)).push_unseparated("::bigint[]");
        columns.push_bind(column(&rows, |row| row.state.version.cast_signed())).push_unseparated("::bigint[]");
        columns.push_bind(column(&rows, |row| row.state.updated_at.get())).push_unseparated("::timestamptz[]");
        columns.push_bind(column(&rows, |row| row.ended.then_some(now))).push_unseparated("::timestamptz[]");
        statement.push(
            ")
    on conflict (variant_id) do update
       set on_hand = excluded.on_hand, reserved = excluded.reserved, low_stock_threshold = excluded.low_stock_threshold,
           version = excluded.version, updated_at = excluded.updated_at, removed_at = excluded.removed_at
",
        );
    }
}

/// A row of the table, as far as a command needs it.
struct StockRow {
    variant_id: Uuid,
    listing_id: Uuid,
    seller_id: Uuid,
    on_hand: i64,
    reserved: i64,
    low_stock_threshold: Option<i64>,
    version: i64,
    updated_at: DateTime<Utc>,
}

impl From<StockRow> for Stock {
    fn from(row: StockRow) -> Self {
        Self {
            variant_id: VariantId(row.variant_id),
            listing_id: ListingId(row.listing_id),
            seller_id: UserId(row.seller_id),
            on_hand: row.on_hand,
            reserved: row.reserved,
            low_stock_threshold: row.low_stock_threshold,
            version: row.version.cast_unsigned(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// Locks the stock of a variant until the transaction ends. `None` if there is none.
pub async fn lock_stock(connection: &mut PgConnection, variant: VariantId) -> Result<Option<Stock>, CommandError> {
    let row = sqlx::query_as!(
        StockRow,
        "select variant_id, listing_id, seller_id, on_hand, reserved, low_stock_threshold, version, updated_at
           from command.stock where variant_id = $1 and removed_at is null for update",
        variant.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Stock::from))
}

/// Locks the stock of all variants of these listings by variant id, the one order that cannot deadlock.
pub async fn lock_stock_of(connection: &mut PgConnection, listings: &[ListingId]) -> Result<Vec<Stock>, CommandError> {
    let ids: Vec<_> = listings.iter().map(|id| id.0).collect();
    let rows = sqlx::query_as!(
        StockRow,
        "select variant_id, listing_id, seller_id, on_hand, reserved, low_stock_threshold, version, updated_at
           from command.stock where listing_id = any($1) and removed_at is null order by variant_id for update",
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Stock::from).collect())
}

#[cfg(test)]
mod tests {
    use events::Listing;

    use super::*;
    use crate::journal::Changes;
    use crate::journal::tests::check_statement;

    #[tokio::test]
    async fn the_part_of_stock_is_valid_alone_and_with_listings() {
        check_statement(Changes::touch::<Stock>).await;
        check_statement(|changes| {
            changes.touch::<Stock>();
            changes.touch::<Listing>();
        })
        .await;
    }
}
