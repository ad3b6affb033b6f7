//! Writes what a command decided: state tables, journal and outbox, in one statement.
//!
//! Each kind of aggregate contributes the part of the statement that writes its own state table ([`StateTable`]). The journal and the
//! outbox are written here and are the same for every kind of aggregate. A row of a state table is always the state of the last event of its
//! aggregate, because nothing else writes these tables. The row lock of an aggregate that exists is taken before; two
//! transactions that make the same version meet in `events_version_key`, and the later one starts again.

mod changes;

use chrono::{DateTime, Utc};
use events::{Headers, Recorded};
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use self::changes::ChangeGroup;
use crate::actor::Actor;
use crate::command::CommandError;
use crate::database::DatabaseError;

pub use changes::{Changes, StateRow, StateTable};

/// Writes the changes and the states after them with one statement. No changes, no statement.
///
/// On a connection without a transaction the statement is a transaction of its own. The caller then treats a lost connection as an
/// unknown outcome ([`CommandError::while_committing`]).
pub async fn write(
    connection: &mut PgConnection,
    changes: &Changes,
    actor: &Actor,
    now: DateTime<Utc>,
) -> Result<(), CommandError> {
    if changes.is_empty() {
        return Ok(());
    }
    let recorded = changes.encode(actor, now)?;
    let groups = changes.groups();
    let mut statement = statement(&groups, &recorded, now);
    let written = statement.build().execute(connection).await;
    written.map(drop).map_err(|error| meaning_of(error.into(), &groups))
}

/// Composes the statement. Its text depends on the kinds only, not on the rows.
fn statement(groups: &[&dyn ChangeGroup], recorded: &[Recorded], now: DateTime<Utc>) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new("with ");
    for group in groups {
        statement.push(group.kind()).push("_rows as (");
        group.push_upsert(now, &mut statement);
        statement.push("), ");
    }
    push_journal(recorded, &mut statement);
    statement
}

/// `with ordinality` keeps the order of the events: `seq` follows the order in which they happened.
fn push_journal(recorded: &[Recorded], statement: &mut QueryBuilder<Postgres>) {
    statement.push(
        "journal as (
    insert into command.events (aggregate, aggregate_id, version, event_id, type, headers, body)
    select aggregate, aggregate_id, version, event_id, type, headers, body
      from unnest(",
    );
    let mut columns = statement.separated(", ");
    columns.push_bind(column(recorded, |event| event.key.kind.name())).push_unseparated("::text[]");
    columns.push_bind(column(recorded, |event| event.key.id)).push_unseparated("::uuid[]");
    columns.push_bind(column(recorded, |event| event.version.cast_signed())).push_unseparated("::bigint[]");
    columns.push_bind(column::<_, Uuid>(recorded, |event| event.id.0)).push_unseparated("::uuid[]");
    columns.push_bind(column(recorded, |event| event.event_type)).push_unseparated("::text[]");
    columns.push_bind(column::<_, Json<&Headers>>(recorded, |event| Json(&event.headers))).push_unseparated("::jsonb[]");
    columns.push_bind(column::<_, &[u8]>(recorded, |event| &event.body)).push_unseparated("::bytea[]");
    // The shard is the id's last byte mod 16 (PROTOCOL W4).
    statement.push(
        ") with ordinality as event (aggregate, aggregate_id, version, event_id, type, headers, body, place)
     order by place
    returning seq, aggregate_id
)
insert into command.outbox (shard, seq) select (get_byte(uuid_send(aggregate_id), 15) % 16)::smallint, seq from journal",
    );
}

/// One column of the rows, as `unnest` takes it.
pub fn column<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A broken unique constraint means what the kind of aggregate says that it means.
fn meaning_of(error: DatabaseError, groups: &[&dyn ChangeGroup]) -> CommandError {
    let DatabaseError::Taken { constraint, .. } = &error else { return error.into() };
    let known = groups.iter().flat_map(|group| group.taken()).find(|(name, _)| name == constraint);
    known.map_or_else(|| error.into(), |(_, meaning)| CommandError::Taken(meaning))
}

#[cfg(test)]
pub mod tests {
    use events::listing::ListingChange;
    use events::stock::StockChange;
    use events::{Listing, Roles, Stock};
    use serde_json::json;
    use sqlx::Executor as _;

    use super::*;
    use crate::listings::tests::{SELLER, a_listing, now, user};
    use crate::test_database::TestDatabase;

    /// Prepares the statement for these kinds on a migrated database. The compiler does not check a composed statement, so each noun has a
    /// test that does.
    pub async fn check_statement(kinds: impl FnOnce(&mut Changes)) {
        let Some(database) = TestDatabase::create().await else { return };
        let mut changes = Changes::default();
        kinds(&mut changes);
        let composed = statement(&changes.groups(), &[], now()).into_sql();
        let mut connection = database.app.database.connection().await.unwrap();
        connection.prepare(composed).await.unwrap();
        drop(connection);
        database.drop().await;
    }

    fn text(changes: &Changes) -> String {
        let recorded = changes.encode(&user(SELLER, Roles::SELLER), now()).unwrap();
        statement(&changes.groups(), &recorded, now()).into_string()
    }

    #[test]
    fn a_statement_depends_on_the_kinds_and_not_on_rows_or_their_order() {
        let listing = a_listing(&json!({ "title": "t", "price": { "amount": "1" } }));
        let mut one = Changes::default();
        one.push::<Listing>(ListingChange::Created {}, listing.listing.clone());
        one.push::<Stock>(StockChange::Opened { on_hand: 0 }, listing.stock[0].clone());
        let mut many = Changes::default();
        for _ in 0..3 {
            many.end::<Stock>(StockChange::Removed {}, listing.stock[0].clone());
            many.end::<Listing>(ListingChange::Deleted {}, listing.listing.clone());
        }
        assert_eq!(text(&one), text(&many));
    }

    #[test]
    fn events_keep_their_order_over_all_kinds_and_appended_changes() {
        let listing = a_listing(&json!({ "title": "t", "price": { "amount": "1" } }));
        let (state, stock) = (listing.listing, listing.stock[0].clone());
        let mut changes = Changes::default();
        changes.push::<Stock>(StockChange::Opened { on_hand: 0 }, stock.clone());
        changes.push::<Listing>(ListingChange::Created {}, state.clone());
        let mut later = Changes::default();
        later.push::<Listing>(ListingChange::Paused {}, Listing { version: 2, ..state.clone() });
        later.end::<Stock>(StockChange::Removed {}, stock);
        later.end::<Listing>(ListingChange::Deleted {}, Listing { version: 2, ..state });
        changes.append(later);

        let recorded = changes.encode(&user(SELLER, Roles::SELLER), now()).unwrap();
        let order: Vec<_> = recorded.iter().map(|event| (event.event_type, event.version)).collect();
        let expected = [
            ("stock.opened.v1", 1),
            ("listing.created.v1", 1),
            ("listing.paused.v1", 2),
            ("stock.removed.v1", 2),
            ("listing.deleted.v1", 3),
        ];
        assert_eq!(order, expected);
    }
}
