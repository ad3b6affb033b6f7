//! Reads events from the journal, in the order in which they are to be published.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::LaneError;
use super::event::{JournalEvent, SubjectKey, shard_of};
use super::session::RelaySession;

/// Upper bound of events per batch (PROTOCOL R6).
pub const BATCH_EVENTS: i64 = 500;

/// Upper bound of events per read when a gap is filled, so that they fit in memory whatever their size.
const FILL_EVENTS: i64 = 20;

/// A row of `command.events`, without its columns for readers of the journal.
pub struct JournalRow {
    pub seq: i64,
    pub aggregate: String,
    pub aggregate_id: Uuid,
    pub version: i64,
    pub event_id: Uuid,
    pub headers: String,
    pub body: Vec<u8>,
}

impl JournalRow {
    fn into_event(self) -> Result<JournalEvent, UnpublishableRow> {
        let Some(key) = SubjectKey::new(&self.aggregate, self.aggregate_id) else {
            return Err(UnpublishableRow { seq: self.seq, kind: self.aggregate, id: self.aggregate_id });
        };
        Ok(JournalEvent {
            seq: self.seq,
            key,
            version: self.version.unsigned_abs(),
            id: self.event_id,
            headers: self.headers,
            body: self.body.into(),
        })
    }
}

/// A row whose kind of aggregate cannot be part of a subject. It stays in the outbox; the rows behind it are published.
#[derive(Debug)]
pub struct UnpublishableRow {
    pub seq: i64,
    pub kind: String,
    pub id: Uuid,
}

impl UnpublishableRow {
    pub fn shard(&self) -> i16 {
        shard_of(self.id)
    }
}

/// Rows read from the journal.
#[derive(Debug, Default)]
pub struct ReadRows {
    /// The highest row read of each shard.
    pub reached: BTreeMap<i16, i64>,
    /// In order of `seq`, and by version within an aggregate.
    pub events: Vec<JournalEvent>,
    pub unpublishable: Vec<UnpublishableRow>,
}

impl ReadRows {
    pub fn of(rows: Vec<JournalRow>) -> Self {
        let mut read = Self { events: Vec::with_capacity(rows.len()), ..Self::default() };
        for row in rows {
            read.reached.insert(shard_of(row.aggregate_id), row.seq);
            match row.into_event() {
                Ok(event) => read.events.push(event),
                Err(row) => read.unpublishable.push(row),
            }
        }
        sort_by_version(&mut read.events);
        read
    }
}

/// Sorts the events if a version of an aggregate comes before a lower one.
fn sort_by_version(events: &mut [JournalEvent]) {
    // The aggregate's row lock makes `seq` and version agree; only one statement that writes two versions could number them
    // otherwise.
    let mut last = HashMap::with_capacity(events.len());
    let sorted = events.iter().all(|event| last.insert(&event.key, event.version).is_none_or(|before| before < event.version));
    if !sorted {
        events.sort_by(|a, b| (&a.key, a.version).cmp(&(&b.key, b.version)));
    }
}

/// Returns these rows of the journal, up to `bytes` of bodies, but at least one.
pub async fn rows_at(session: &mut RelaySession, seqs: &[i64], bytes: i64) -> Result<ReadRows, LaneError> {
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                JournalRow,
                r#"
                with sized as (
                    select head.seq, e.*, sum(octet_length(e.body)) over (order by head.seq) as bytes, row_number() over (order by head.seq) as n
                      from unnest($1::bigint[]) as head (seq) cross join lateral (
                           select aggregate, aggregate_id, version, event_id, headers, body from command.events where seq = head.seq offset 0) as e)
                select seq as "seq!", aggregate, aggregate_id, version, event_id, headers::text as "headers!", body
                  from sized where bytes <= $2 or n = 1 order by seq
                "#,
                seqs,
                bytes,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(ReadRows::of(rows))
}

/// Returns the first events of one aggregate with a version above `after` and below `before`.
pub async fn versions_between(
    session: &mut RelaySession,
    key: &SubjectKey,
    after: u64,
    before: u64,
) -> Result<Vec<JournalEvent>, LaneError> {
    let (after, before) = (after.cast_signed(), before.cast_signed());
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                JournalRow,
                r#"select seq, aggregate, aggregate_id, version, event_id, headers::text as "headers!", body from command.events
                    where aggregate = $1 and aggregate_id = $2 and version > $3 and version < $4 order by version limit $5"#,
                key.kind(),
                key.id(),
                after,
                before,
                FILL_EVENTS,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(rows.into_iter().filter_map(|row| row.into_event().ok()).collect())
}

/// Returns the id of the journal's event of each of these versions, in the same order; `None` where the journal lacks it.
pub async fn event_ids(
    session: &mut RelaySession,
    wanted: impl Iterator<Item = (&SubjectKey, u64)> + Clone,
) -> Result<Vec<Option<Uuid>>, LaneError> {
    let names: Vec<String> = wanted.clone().map(|(key, _)| key.kind().to_owned()).collect();
    let ids: Vec<Uuid> = wanted.clone().map(|(key, _)| key.id()).collect();
    let versions: Vec<i64> = wanted.map(|(_, version)| version.cast_signed()).collect();
    session
        .run(async |connection| {
            sqlx::query_scalar!(
                r#"select e.event_id as "event_id?"
                     from unnest($1::text[], $2::uuid[], $3::bigint[]) with ordinality as wanted (aggregate, id, version, n)
                     left join lateral (select event_id from command.events
                          where aggregate = wanted.aggregate and aggregate_id = wanted.id and version = wanted.version offset 0) as e on true
                    order by wanted.n"#,
                &names,
                &ids,
                &versions,
            )
            .fetch_all(connection)
            .await
        })
        .await
}

/// Returns the highest `seq` of the journal.
pub async fn last_seq(session: &mut RelaySession) -> Result<i64, LaneError> {
    session
        .run(async |connection| {
            sqlx::query_scalar!(r#"select coalesce(max(seq), 0) as "seq!" from command.events"#).fetch_one(connection).await
        })
        .await
}

/// Returns the oldest rows of these shards with a `seq` above `after`, up to `end`. Returns none only if there are none.
pub async fn rows_of_shards(
    session: &mut RelaySession,
    shards: &[i16],
    after: i64,
    end: i64,
    bytes: i64,
) -> Result<ReadRows, LaneError> {
    let shards: Vec<i32> = shards.iter().copied().map(i32::from).collect();
    let seqs = session
        .run(async |connection| {
            sqlx::query_scalar!(
                "select seq from command.events
                  where seq > $1 and seq <= $2 and (get_byte(uuid_send(aggregate_id), 15) % $3) = any($4) order by seq limit $5",
                after,
                end,
                i32::from(super::SHARDS),
                &shards,
                BATCH_EVENTS,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    rows_at(session, &seqs, bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: i64, kind: &str, id: u128, version: i64) -> JournalRow {
        let aggregate_id = Uuid::from_u128(id);
        let (event_id, headers) = (Uuid::nil(), "{}".to_owned());
        JournalRow { seq, aggregate: kind.to_owned(), aggregate_id, version, event_id, headers, body: Vec::new() }
    }

    #[test]
    fn rows_of_any_kind_are_read_and_one_without_a_subject_stops_no_other() {
        let rows = vec![
            row(3, "listing", 1, 1),
            row(5, "newer", 1, 1),
            row(6, "no token", 2, 1),
            row(8, "stock", 2, 4),
            row(9, "newer", 1, 2),
        ];
        let read = ReadRows::of(rows);
        let events: Vec<_> = read.events.iter().map(|event| (event.seq, event.key.kind(), event.version)).collect();
        assert_eq!(events, [(3, "listing", 1), (5, "newer", 1), (8, "stock", 4), (9, "newer", 2)]);
        assert_eq!(read.unpublishable.iter().map(|row| row.seq).collect::<Vec<_>>(), [6]);
        assert_eq!(read.reached, BTreeMap::from([(1, 9), (2, 8)]));
    }

    #[test]
    fn versions_of_an_aggregate_are_in_order() {
        let read = ReadRows::of(vec![row(1, "stock", 1, 2), row(2, "listing", 1, 1), row(3, "stock", 1, 1)]);
        let versions = read.events.iter().filter(|event| event.key.kind() == "stock").map(|event| event.version);
        assert_eq!(versions.collect::<Vec<_>>(), [1, 2]);
    }
}
