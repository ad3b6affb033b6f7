//! Which events are next.

use bytes::Bytes;
use events::AggregateKey;
use uuid::Uuid;

use super::Broken;
use super::ownership::Session;

/// At most this many events travel together (PROTOCOL R6).
pub const BATCH_EVENTS: i64 = 500;

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
    pub seq: i64,
    pub aggregate: String,
    pub id: Uuid,
}

impl Unknown {
    pub fn shard(&self) -> i16 {
        shard_of(self.id)
    }
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
        let Ok(kind) = self.aggregate.parse() else {
            return Err(Unknown { seq: self.seq, aggregate: self.aggregate, id: self.aggregate_id });
        };
        Ok(Event {
            seq: self.seq,
            key: AggregateKey { kind, id: self.aggregate_id },
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
pub async fn claim(session: &mut Session, floors: &[(i16, i64)], per_shard: i64, bytes: i64) -> Result<Claim, Broken> {
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
                bytes,
                per_shard,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    Ok(Claim::of(rows))
}

/// The same, leaving out some aggregates: however many of their events wait at the head, the others get their turn. Slower, since
/// only the journal says whose event a row is; a shard where nothing else waits is read up to its end, so that this is not done
/// again before the next sweep.
pub async fn claim_without(
    session: &mut Session,
    floors: &[(i16, i64)],
    without: &[AggregateKey],
    bytes: i64,
) -> Result<Claim, Broken> {
    let (shards, after): (Vec<i16>, Vec<i64>) = floors.iter().copied().unzip();
    let names: Vec<String> = without.iter().map(|key| key.kind.to_string()).collect();
    let ids: Vec<Uuid> = without.iter().map(|key| key.id).collect();
    let heads = session
        .run(async |connection| {
            sqlx::query!(
                r#"
                select own.shard as "shard!", newest.seq as "newest!", next.seqs as "seqs!"
                  from unnest($1::smallint[], $2::bigint[]) as own (shard, floor)
                 cross join lateral (
                       select o.seq from command.outbox o where o.shard = own.shard and o.seq > own.floor order by o.seq desc limit 1) as newest
                 cross join lateral (
                       select array (
                           select o.seq from command.outbox o
                            cross join lateral (select aggregate, aggregate_id from command.events where seq = o.seq offset 0) as e
                            where o.shard = own.shard and o.seq > own.floor
                              and (e.aggregate, e.aggregate_id) not in (select * from unnest($3::text[], $4::uuid[]))
                            order by o.seq limit $5) as seqs) as next
                "#,
                &shards,
                &after,
                &names,
                &ids,
                BATCH_EVENTS,
            )
            .fetch_all(connection)
            .await
        })
        .await?;
    let nothing_else = heads.iter().filter(|head| head.seqs.is_empty()).map(|head| (head.shard, head.newest)).collect::<Vec<_>>();
    let mut seqs: Vec<i64> = heads.into_iter().flat_map(|head| head.seqs).collect();
    seqs.sort_unstable();
    seqs.truncate(usize::try_from(BATCH_EVENTS).unwrap_or(usize::MAX));
    let mut claim = of_journal(session, &seqs, bytes).await?;
    claim.reached.extend(nothing_else);
    Ok(claim)
}

/// These rows of the journal, as many as may travel together.
async fn of_journal(session: &mut Session, seqs: &[i64], bytes: i64) -> Result<Claim, Broken> {
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                Row,
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
                key.kind.name(),
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
    let names: Vec<String> = wanted.iter().map(|(key, _)| key.kind.to_string()).collect();
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
pub async fn journal_of(session: &mut Session, shards: &[i16], after: i64, end: i64, bytes: i64) -> Result<Claim, Broken> {
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
    of_journal(session, &seqs, bytes).await
}

/// Has these rows, by shard and seq, published like new ones.
pub async fn put_back(session: &mut Session, rows: &[(i16, i64)]) -> Result<(), Broken> {
    if rows.is_empty() {
        return Ok(());
    }
    let (shards, seqs): (Vec<i16>, Vec<i64>) = rows.iter().copied().unzip();
    session
        .run(async |connection| {
            sqlx::query!(
                "insert into command.outbox (shard, seq) select * from unnest($1::smallint[], $2::bigint[]) on conflict do nothing",
                &shards,
                &seqs,
            )
            .execute(connection)
            .await
        })
        .await?;
    Ok(())
}
