//! Finds the events to publish next: rows of the outbox, with their events from the journal.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::LaneError;
use super::deferred::DeferredAggregates;
use super::event::{JournalEvent, StoredEvent, SubjectKey};
use super::journal_reader::{BATCH_EVENTS, JournalRow, ReadRows, rows_at};
use super::ownership::ShardOwnership;
use super::session::RelaySession;

/// A claim reads above the floor of each shard, because the head of a table where much was deleted is slow to read. A row that
/// committed late lies below the floor. It is found by a sweep, which reads from the start, this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Where a lane reads the outbox.
pub struct Claimer {
    /// By shard, the last row that was read; none means that the shard is read from the start.
    floors: BTreeMap<i16, i64>,
    swept: Instant,
    /// In how many shards the last claim found rows.
    shards_with_rows: usize,
    /// The shards whose oldest rows may be in the stream already: their former owner may have died between ack and delete.
    unverified: BTreeSet<i16>,
    /// The aggregates of unpublishable rows that were logged.
    logged: HashSet<Uuid>,
}

impl Claimer {
    pub fn new() -> Self {
        Self {
            floors: BTreeMap::new(),
            swept: Instant::now(),
            shards_with_rows: 0,
            unverified: BTreeSet::new(),
            logged: HashSet::new(),
        }
    }

    /// Begins to read a shard that was taken.
    pub fn add(&mut self, shard: i16, stream_is_empty: bool) {
        self.floors.remove(&shard);
        if !stream_is_empty {
            self.unverified.insert(shard);
        }
    }

    pub fn sweep_is_due(&self) -> bool {
        self.swept.elapsed() >= SWEEP_EVERY
    }

    /// Makes the next claim read every shard from the start.
    pub fn sweep(&mut self) {
        self.floors.clear();
        self.swept = Instant::now();
    }

    /// Returns the oldest events above the floors, and moves the floors beyond them.
    pub async fn claim(
        &mut self,
        session: &mut RelaySession,
        ownership: &ShardOwnership,
        deferred: &DeferredAggregates,
        bytes: i64,
    ) -> Result<Vec<JournalEvent>, LaneError> {
        let floor = |shard: &i16| (*shard, self.floors.get(shard).copied().unwrap_or_default());
        let floors: Vec<(i16, i64)> = ownership.owned().iter().map(floor).collect();
        let without = deferred.backing_off();
        let ReadRows { events, unpublishable, reached } = if without.is_empty() {
            oldest(session, &floors, rows_per_shard(self.shards_with_rows), bytes).await?
        } else {
            oldest_without(session, &floors, &without, bytes).await?
        };
        self.shards_with_rows = reached.len();
        self.floors.extend(reached);
        for row in unpublishable {
            if self.logged.insert(row.id) {
                warn!(aggregate.id = %row.id, outbox.seq = row.seq, "Event cannot be published: kind {:?} is not valid in a NATS subject", row.kind);
            }
        }
        Ok(events)
    }

    /// Returns the aggregates whose last message in the stream must be known before these events are published. Those of a batch
    /// in flight are known from its ack.
    pub fn to_look_up(&self, events: &[JournalEvent], in_flight: &HashSet<SubjectKey>) -> HashSet<SubjectKey> {
        let wanted = events.iter().filter(|event| event.version > 1 || self.unverified.contains(&event.shard()));
        wanted.map(|event| &event.key).filter(|key| !in_flight.contains(key)).cloned().collect()
    }

    /// Ends the doubt about shards of which the stream lacks an event: rows leave the outbox in order, so the stream has none of
    /// the later ones.
    pub fn verify(&mut self, events: &[JournalEvent], last_messages: &HashMap<SubjectKey, StoredEvent>) {
        if self.unverified.is_empty() {
            return;
        }
        for event in events {
            if last_messages.get(&event.key).is_none_or(|last| last.version < event.version) {
                self.unverified.remove(&event.shard());
            }
        }
    }
}

/// Returns how many rows to read per shard, if the claim before found rows in so many shards.
///
/// A backlog in many shards fills a batch with a few rows of each. Reading a full batch per shard would take a third of the claim's
/// time.
fn rows_per_shard(shards_with_rows: usize) -> i64 {
    let shards = i64::try_from(shards_with_rows).unwrap_or(i64::MAX).max(1);
    // Twice the average: shards are never filled evenly.
    (2 * BATCH_EVENTS / shards).clamp(1, BATCH_EVENTS)
}

/// Reads the oldest unpublished events of these shards, each above its floor.
///
/// No row is locked or changed: the session's advisory lock on the shard is the claim. Each lookup is a `lateral … offset 0`,
/// which the planner cannot turn into a join of whole tables, even if its statistics say that they are empty.
async fn oldest(session: &mut RelaySession, floors: &[(i16, i64)], per_shard: i64, bytes: i64) -> Result<ReadRows, LaneError> {
    let (shards, after): (Vec<i16>, Vec<i64>) = floors.iter().copied().unzip();
    let rows = session
        .run(async |connection| {
            sqlx::query_as!(
                JournalRow,
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
    Ok(ReadRows::of(rows))
}

/// Like [`oldest`], but leaves out the events of some aggregates, however many of them are the oldest.
///
/// Slower, since only the journal says which aggregate a row belongs to. The floor of a shard that holds nothing else moves to
/// its end, so that its rows are not read again before the next sweep.
async fn oldest_without(
    session: &mut RelaySession,
    floors: &[(i16, i64)],
    without: &[SubjectKey],
    bytes: i64,
) -> Result<ReadRows, LaneError> {
    let (shards, after): (Vec<i16>, Vec<i64>) = floors.iter().copied().unzip();
    let kinds: Vec<String> = without.iter().map(|key| key.kind().to_owned()).collect();
    let ids: Vec<Uuid> = without.iter().map(SubjectKey::id).collect();
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
                &kinds,
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
    let mut read = rows_at(session, &seqs, bytes).await?;
    read.reached.extend(nothing_else);
    Ok(read)
}

/// Inserts these rows, by shard and seq, into the outbox again.
pub async fn return_to_outbox(session: &mut RelaySession, rows: &[(i16, i64)]) -> Result<(), LaneError> {
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
