//! Which events are next.

use bytes::Bytes;
use events::AggregateKey;
use uuid::Uuid;

use super::Broken;
use super::ownership::Session;

/// At most this many events travel together (PROTOCOL R6).
pub const BATCH_EVENTS: i64 = 500;
/// … and at most about this many bytes of body; a single event may be larger.
pub const BATCH_BYTES: i64 = 4 * 1024 * 1024;

/// A gap is filled in steps of this many events: whatever their size, they fit in memory.
const FILL_EVENTS: i64 = 20;

/// An event of the journal, on its way.
#[derive(Debug)]
pub struct Event {
    pub seq: i64,
    pub key: AggregateKey,
    pub version: u64,
    pub id: Uuid,
    /// A JSON object of text.
    pub headers: String,
    pub body: Bytes,
}

impl Event {
    pub fn shard(&self) -> i16 {
        shard_of(self.key.id)
    }
}

/// The shard that an aggregate's events are in: by the id's last byte, since the first ones of a UUIDv7 are time (PROTOCOL W4).
pub fn shard_of(id: Uuid) -> i16 {
    i16::from(id.as_bytes()[15]) % super::SHARDS
}

/// A row whose aggregate this program does not know: a newer one wrote it.
#[derive(Debug)]
pub struct Unknown {
    pub aggregate: String,
    pub id: Uuid,
}

struct Row {
    seq: i64,
    aggregate: String,
    aggregate_id: Uuid,
    version: i64,
    event_id: Uuid,
    headers: String,
    body: Vec<u8>,
}

impl Row {
    fn read(self) -> Result<Event, Unknown> {
        let Ok(aggregate) = self.aggregate.parse() else {
            return Err(Unknown { aggregate: self.aggregate, id: self.aggregate_id });
        };
        Ok(Event {
            seq: self.seq,
            key: AggregateKey { aggregate, id: self.aggregate_id },
            version: self.version.unsigned_abs(),
            id: self.event_id,
            headers: self.headers,
            body: self.body.into(),
        })
    }
}

/// What was found beyond the floors.
#[derive(Debug, Default)]
pub struct Claim {
    /// The highest row of each shard that was looked at.
    pub reached: Vec<(i16, i64)>,
    /// In order of `seq`, and by version within an aggregate.
    pub events: Vec<Event>,
    pub unknown: Vec<Unknown>,
}

impl Claim {
    fn of(rows: Vec<Row>) -> Self {
        let mut claim = Self::default();
        for row in rows {
            let (shard, seq) = (shard_of(row.aggregate_id), row.seq);
            match claim.reached.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, reached)) => *reached = seq,
                None => claim.reached.push((shard, seq)),
            }
            match row.read() {
                Ok(event) => claim.events.push(event),
                Err(unknown) => claim.unknown.push(unknown),
            }
        }
        in_order(&mut claim.events);
        claim
    }
}

/// How many rows to look at in each shard, when the claim before found some in this many of them. A backlog in many shards fills a
/// batch with a few of each; looking at a whole batch in each costs a third of the claim.
pub fn rows_per_shard(shards_with_rows: usize) -> i64 {
    let shards = i64::try_from(shards_with_rows).unwrap_or(i64::MAX).max(1);
    // Twice the share: shards are never filled evenly.
    (2 * BATCH_EVENTS / shards).clamp(1, BATCH_EVENTS)
}

/// Reads the oldest unpublished events of these shards, each beyond its floor.
///
/// Nothing is locked or marked: the session's advisory lock on the shard is the claim. Each lookup is a `lateral … offset 0`,
/// which the planner cannot turn into a join of whole tables when its statistics are of an hour when they were empty.
pub async fn claim(session: &mut Session, floors: &[(i16, i64)], per_shard: i64) -> Result<Claim, Broken> {
    let (shards, after): (Vec<i16>, Vec<i64>) = floors.iter().copied().unzip();
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                Row,
                r#"
                with head as materialized (
                    select next.seq from unnest($1::smallint[], $2::bigint[]) as own (shard, floor)
                     cross join lateral (
                           select o.seq from command.outbox o where o.shard = own.shard and o.seq > own.floor order by o.seq limit $5) as next
                     order by next.seq limit $3),
                sized as (
                    select head.seq, e.*, sum(octet_length(e.body)) over (order by head.seq) as bytes, row_number() over (order by head.seq) as n
                      from head cross join lateral (
                           select aggregate, aggregate_id, version, event_id, headers, body from command.events where seq = head.seq offset 0) as e)
                select seq as "seq!", aggregate, aggregate_id, version, event_id, headers::text as "headers!", body
                  from sized where bytes <= $4 or n = 1 order by seq
                "#,
                &shards,
                &after,
                BATCH_EVENTS,
                BATCH_BYTES,
                per_shard,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(Claim::of(rows))
}

/// The same, leaving out some aggregates: however many of their events wait at the head, the others get their turn. Slower, since
/// only the journal says whose event a row is.
pub async fn claim_without(session: &mut Session, floors: &[(i16, i64)], without: &[AggregateKey]) -> Result<Claim, Broken> {
    let (shards, after): (Vec<i16>, Vec<i64>) = floors.iter().copied().unzip();
    let names: Vec<String> = without.iter().map(|key| key.aggregate.to_string()).collect();
    let ids: Vec<Uuid> = without.iter().map(|key| key.id).collect();
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                Row,
                r#"
                with head as materialized (
                    select next.seq from unnest($1::smallint[], $2::bigint[]) as own (shard, floor)
                     cross join lateral (
                           select o.seq from command.outbox o
                            cross join lateral (select aggregate, aggregate_id from command.events where seq = o.seq offset 0) as e
                            where o.shard = own.shard and o.seq > own.floor
                              and (e.aggregate, e.aggregate_id) not in (select * from unnest($5::text[], $6::uuid[]))
                            order by o.seq limit $3) as next
                     order by next.seq limit $3),
                sized as (
                    select head.seq, e.*, sum(octet_length(e.body)) over (order by head.seq) as bytes, row_number() over (order by head.seq) as n
                      from head cross join lateral (
                           select aggregate, aggregate_id, version, event_id, headers, body from command.events where seq = head.seq offset 0) as e)
                select seq as "seq!", aggregate, aggregate_id, version, event_id, headers::text as "headers!", body
                  from sized where bytes <= $4 or n = 1 order by seq
                "#,
                &shards,
                &after,
                BATCH_EVENTS,
                BATCH_BYTES,
                &names,
                &ids,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(Claim::of(rows))
}

/// Puts the versions of each aggregate in order, in the places that the aggregate's events have.
fn in_order(events: &mut [Event]) {
    // A row lock orders them already; only a statement that writes two versions at once could number them otherwise.
    let ordered = |events: &[Event]| {
        let mut last = std::collections::HashMap::with_capacity(events.len());
        events.iter().all(|event| last.insert(event.key, event.version).is_none_or(|before| before < event.version))
    };
    if !ordered(events) {
        events.sort_by_key(|event| (event.key, event.version));
    }
}

/// The journal's events of one aggregate from `after` up to, not including, `before`.
pub async fn from_journal(session: &mut Session, key: AggregateKey, after: u64, before: u64) -> Result<Vec<Event>, Broken> {
    let (after, before) = (after.cast_signed(), before.cast_signed());
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                Row,
                r#"select seq, aggregate, aggregate_id, version, event_id, headers::text as "headers!", body from command.events
                    where aggregate = $1 and aggregate_id = $2 and version > $3 and version < $4 order by version limit $5"#,
                key.aggregate.as_str(),
                key.id,
                after,
                before,
                FILL_EVENTS,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(rows.into_iter().filter_map(|row| row.read().ok()).collect())
}

/// The journal's event of each of these versions, in the same order.
pub async fn journal_ids(session: &mut Session, wanted: &[(AggregateKey, u64)]) -> Result<Vec<Option<Uuid>>, Broken> {
    let names: Vec<String> = wanted.iter().map(|(key, _)| key.aggregate.to_string()).collect();
    let ids: Vec<Uuid> = wanted.iter().map(|(key, _)| key.id).collect();
    let versions: Vec<i64> = wanted.iter().map(|(_, version)| version.cast_signed()).collect();
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

/// The highest row of the journal.
pub async fn journal_end(session: &mut Session) -> Result<i64, Broken> {
    session
        .run(async |connection| {
            sqlx::query_scalar!(r#"select coalesce(max(seq), 0) as "seq!" from command.events"#).fetch_one(connection).await
        })
        .await
}

/// The journal's events of these shards from `after` up to `end`, the oldest first: some of them, none only if there are none.
pub async fn journal_of(session: &mut Session, shards: &[i16], after: i64, end: i64) -> Result<Claim, Broken> {
    let shards: Vec<i32> = shards.iter().copied().map(i32::from).collect();
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                Row,
                r#"
                with head as materialized (
                    select seq, octet_length(body) as size from command.events
                     where seq > $1 and seq <= $2 and (get_byte(uuid_send(aggregate_id), 15) % $3) = any($4) order by seq limit $5),
                sized as (select seq, sum(size) over (order by seq) as bytes, row_number() over (order by seq) as n from head)
                select sized.seq as "seq!", e.aggregate, e.aggregate_id, e.version, e.event_id, e.headers::text as "headers!", e.body
                  from sized cross join lateral (
                       select aggregate, aggregate_id, version, event_id, headers, body from command.events where seq = sized.seq offset 0) as e
                 where sized.bytes <= $6 or sized.n = 1 order by sized.seq
                "#,
                after,
                end,
                i32::from(super::SHARDS),
                &shards,
                BATCH_EVENTS,
                BATCH_BYTES,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(Claim::of(rows))
}
