//! Rows of `command.listings`. A deleted listing keeps its row, because its id never comes back; it is never found.

use chrono::{DateTime, Utc};
use events::{Listing, ListingId, UserId};
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use crate::command::CommandError;
use crate::journal::{StateRow, StateTable, column};

impl StateTable for Listing {
    const TAKEN: &'static [(&'static str, &'static str)] =
        &[("listings_external_id_key", "The seller has another listing with this external_id")];

    fn version_mut(&mut self) -> &mut u64 {
        &mut self.version
    }

    fn push_upsert(mut rows: Vec<StateRow<'_, Self>>, now: DateTime<Utc>, statement: &mut QueryBuilder<Postgres>) {
        // Two batches that insert the same external ids wait for each other instead of deadlocking.
        rows.sort_unstable_by_key(|row| (row.state.seller_id, &row.state.external_id, row.state.id));
        statement.push(
            "
    insert into command.listings (id, version, seller_id, external_id, status, state, deleted_at)
    select * from unnest(",
        );
        let mut columns = statement.separated(", ");
        columns.push_bind(column(&rows, |row| row.state.id.0)).push_unseparated("::uuid[]");
        columns.push_bind(column(&rows, |row| row.state.version.cast_signed())).push_unseparated("::bigint[]");
        columns.push_bind(column(&rows, |row| row.state.seller_id.0)).push_unseparated("::uuid[]");
        columns.push_bind(column(&rows, |row| row.state.external_id.as_deref())).push_unseparated("::text[]");
        columns.push_bind(column(&rows, |row| row.state.status.as_str())).push_unseparated("::text[]");
        columns.push_bind(column(&rows, |row| Json(row.state))).push_unseparated("::jsonb[]");
        columns.push_bind(column(&rows, |row| row.ended.then_some(now))).push_unseparated("::timestamptz[]");
        statement.push(
            ")
    on conflict (id) do update
       set version = excluded.version, external_id = excluded.external_id, status = excluded.status,
           state = excluded.state, deleted_at = excluded.deleted_at
",
        );
    }
}

/// Locks a listing until the transaction ends. `None` if there is none.
pub async fn lock_listing(connection: &mut PgConnection, id: ListingId) -> Result<Option<Listing>, CommandError> {
    Ok(lock_listings(connection, &[id]).await?.pop())
}

/// Locks several listings by id, the one order that cannot deadlock. Returns those that there are.
pub async fn lock_listings(connection: &mut PgConnection, ids: &[ListingId]) -> Result<Vec<Listing>, CommandError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let states = sqlx::query_scalar!(
        r#"select state as "state: Json<Listing>" from command.listings where id = any($1) and deleted_at is null order by id for update"#,
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(states.into_iter().map(|state| state.0).collect())
}

/// Reads a listing without locking it.
pub async fn read_listing(connection: &mut PgConnection, id: ListingId) -> Result<Option<Listing>, CommandError> {
    let state = sqlx::query_scalar!(
        r#"select state as "state: Json<Listing>" from command.listings where id = $1 and deleted_at is null"#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(state.map(|state| state.0))
}

/// Finds the listings of these sellers with these external ids, without locking them.
pub async fn find_by_external_id(
    connection: &mut PgConnection,
    keys: &[(UserId, String)],
) -> Result<Vec<ListingId>, CommandError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Changes;
    use crate::journal::tests::check_statement;

    #[tokio::test]
    async fn the_part_of_listings_is_valid() {
        check_statement(Changes::touch::<Listing>).await;
    }
}
