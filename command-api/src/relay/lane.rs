//! One lane: take shards, claim their events, ship them; again and again, until something breaks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use events::AggregateKey;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::broker::Broker;
use super::claim::{Claim, Event, claim, claim_without, rows_per_shard, shard_of};
use super::extent::Extent;
use super::mark::{self, Kept, Mark};
use super::ownership::Session;
use super::pace::Pace;
use super::publish::Naming;
use super::resolve::Stored;
use super::status::Aside;
use super::{Broken, Metrics, Status};

/// Wake-ups can be missed (the process that commits is often not the shard's owner); polling finds the rest.
const POLL: Duration = Duration::from_millis(25);

/// The poll looks beyond the last row it saw: the head of a table where much was deleted is slow to read. Rows that
/// committed late lie before it, and are found from the start this often.
const SWEEP: Duration = Duration::from_secs(1);

/// A few shards at a time, so that the processes that are left share what a dead one owned.
const TAKE_AT_ONCE: usize = 2;
const TAKE_EVERY: Duration = Duration::from_millis(100);

/// Of a stop's grace, what the last events may take; whoever owns the shards next publishes the rest.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

const ASIDE_FIRST: Duration = Duration::from_secs(1);
const ASIDE_LAST: Duration = Duration::from_mins(1);

/// Aggregates whose last message is remembered. Forgetting one costs a read.
const TIPS_KEPT: usize = 100_000;

/// What a lane is started with.
pub struct Plan {
    pub number: i16,
    /// The shards it may own.
    pub shards: Vec<i16>,
    pub database: PgConnectOptions,
    pub nats_urls: Vec<String>,
    pub wake: watch::Receiver<()>,
    pub status: Status,
    pub metrics: Metrics,
}

/// Works until told to stop, beginning again whenever something breaks that may mend by itself.
pub async fn run(plan: Plan, stop: CancellationToken) -> anyhow::Result<()> {
    let mut pace = Pace::FULL;
    let mut extent = None;
    while !stop.is_cancelled() {
        let Err(broken) = Box::pin(attempt(&plan, &stop, &mut pace, &mut extent)).await else { continue };
        plan.status.released(&plan.shards);
        plan.status.waiting(plan.number, broken.to_string());
        anyhow::ensure!(!matches!(broken, Broken::Unfit(_)), "{broken}");
        let retry = pace.retry;
        warn!(relay.lane = plan.number, error = %broken, retry_ms = retry.as_millis(), "Will begin again: {broken}");
        let _stopped = stop.run_until_cancelled(sleep(retry)).await;
        pace = pace.after(&broken);
    }
    plan.status.released(&plan.shards);
    Ok(())
}

async fn attempt(plan: &Plan, stop: &CancellationToken, pace: &mut Pace, extent: &mut Option<Extent>) -> Result<(), Broken> {
    // The broker first: a process that cannot publish must not keep shards from one that can.
    let opening = async { Ok::<_, Broken>((Broker::connect(&plan.nats_urls).await?, Session::open(&plan.database).await?)) };
    let Some(opened) = stop.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let (broker, session) = opened?;
    let mut lane = Lane {
        plan,
        stop,
        pace,
        extent: extent.get_or_insert(broker.found()),
        broker: Arc::new(broker),
        session,
        owned: BTreeMap::new(),
        marks: BTreeMap::new(),
        tips: HashMap::new(),
        aside: HashMap::new(),
        refused: HashSet::new(),
        unknown: HashSet::new(),
        fresh: BTreeSet::new(),
        acknowledged: Vec::new(),
        newest: 0,
        swept: Instant::now(),
        spread: 0,
        tried: 0,
    };
    plan.status.working(plan.number);
    let outcome = lane.work().await;
    // A session that is lost has nothing to release.
    if !matches!(outcome, Err(Broken::Session(_))) {
        lane.session.close().await;
    }
    outcome
}

pub struct SetAside {
    until: Instant,
    pause: Duration,
}

/// What a lane holds, and has learned while it held it.
pub struct Lane<'a> {
    pub plan: &'a Plan,
    pub stop: &'a CancellationToken,
    pub pace: &'a mut Pace,
    pub broker: Arc<Broker>,
    pub session: Session,
    /// What the stream held when we last looked, be it in an earlier attempt: what goes while we begin again is lost as well.
    extent: &'a mut Extent,
    /// The shards that the session has the locks of, each with the last row seen.
    pub owned: BTreeMap<i16, i64>,
    /// By shard, the newest event that the stream is known to hold.
    pub marks: BTreeMap<i16, Mark>,
    pub tips: HashMap<AggregateKey, Stored>,
    pub aside: HashMap<AggregateKey, SetAside>,
    /// The aggregates whose events the broker refused since it last stored one.
    pub refused: HashSet<AggregateKey>,
    unknown: HashSet<Uuid>,
    /// The shards whose oldest rows may be in the stream already: their former owner may have died between ack and delete.
    fresh: BTreeSet<i16>,
    /// Rows of the outbox that the broker has acknowledged, by shard and seq.
    pub acknowledged: Vec<(i16, i64)>,
    /// The highest sequence that was acknowledged to this connection.
    pub newest: u64,
    swept: Instant,
    /// In how many shards the last claim found something.
    spread: usize,
    /// How often shards were tried, so that each gets its turn.
    tried: usize,
}

impl Lane<'_> {
    async fn work(&mut self) -> Result<(), Broken> {
        let mut wake = self.plan.wake.clone();
        let mut next_take = Instant::now();
        let mut prefetched: Option<Vec<Event>> = None;
        // What went while we began again is lost as well.
        self.check_nothing_lost().await?;
        self.check_rewound().await?;
        while !self.stop.is_cancelled() {
            self.broker.check_connected()?;
            if self.owned.len() < self.plan.shards.len() && Instant::now() >= next_take {
                self.take().await?;
                next_take = Instant::now() + TAKE_EVERY;
            }
            let events = if let Some(events) = prefetched.take() {
                events
            } else {
                // A sweep reads what a batch in flight has read already: it waits until that is deleted.
                self.settle().await?;
                if self.swept.elapsed() >= SWEEP {
                    self.check_nothing_lost().await?;
                    self.check_no_doubt().await?;
                    self.sweep();
                }
                self.claim(&HashSet::new()).await?
            };
            if events.is_empty() {
                self.settle().await?;
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.broker.lost().cancelled() => {}
                    () = sleep(POLL) => {}
                    () = async { if wake.changed().await.is_err() { pending::<()>().await } } => {}
                }
            } else {
                let ahead = self.swept.elapsed() < SWEEP;
                prefetched = self.ship(events, ahead, Naming::Own).await?;
                *self.pace = self.pace.after_success();
            }
        }
        self.finish(prefetched.unwrap_or_default()).await
    }

    /// Publishes what is committed by now: there may be nobody else to do it soon.
    async fn finish(&mut self, mut events: Vec<Event>) -> Result<(), Broken> {
        let deadline = Instant::now() + FINISH_WITHIN;
        self.sweep();
        loop {
            self.ship(events, false, Naming::Own).await?;
            self.settle().await?;
            if Instant::now() >= deadline {
                return Ok(());
            }
            events = self.claim(&HashSet::new()).await?;
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Has the next claim begin at the start.
    fn sweep(&mut self) {
        self.owned.values_mut().for_each(|floor| *floor = 0);
        self.swept = Instant::now();
    }

    /// Takes a few of the shards that nobody owns, and makes sure that the stream has what it acknowledged for them.
    async fn take(&mut self) -> Result<(), Broken> {
        let missing: Vec<i16> = self.plan.shards.iter().copied().filter(|shard| !self.owned.contains_key(shard)).collect();
        self.tried += TAKE_AT_ONCE;
        let wanted: Vec<i16> =
            missing.iter().cycle().skip(self.tried % missing.len()).take(TAKE_AT_ONCE.min(missing.len())).copied().collect();
        let mut lost = self.take_whole(&wanted).await?;
        if !lost.is_empty() {
            // What lost one shard's events has most likely lost the others' too: one reading of the journal for all.
            let rest: Vec<i16> = missing.into_iter().filter(|shard| !wanted.contains(shard)).collect();
            lost.extend(self.take_whole(&rest).await?);
            self.repair(&lost).await?;
        }
        Ok(())
    }

    /// Locks those of these shards that are free. Owns the ones that the stream has all of; returns the others.
    async fn take_whole(&mut self, wanted: &[i16]) -> Result<Vec<(i16, String)>, Broken> {
        let mut lost = Vec::new();
        for shard in self.session.try_take(wanted).await? {
            match mark::check(&mut self.session, &self.broker, shard).await? {
                Kept::Unmarked => self.own(shard, None),
                Kept::All(mark) => self.own(shard, Some(mark)),
                Kept::Lost(why) => lost.push((shard, why)),
            }
        }
        Ok(lost)
    }

    fn own(&mut self, shard: i16, mark: Option<Mark>) {
        self.owned.insert(shard, 0);
        if self.broker.found().messages > 0 {
            self.fresh.insert(shard);
        }
        self.plan.status.owns(shard, mark.clone());
        self.marks.extend(mark.map(|mark| (shard, mark)));
        info!(relay.shard = shard, relay.lane = self.plan.number, "Took shard {shard}");
    }

    /// Fails if the stream has lost something since we looked last; whoever takes a shard then repairs it first.
    ///
    /// Comes before every change of a mark, and before a gap is filled: what is published after a loss could hide it.
    pub async fn check_nothing_lost(&mut self) -> Result<(), Broken> {
        let extent = self.session.keep_while(self.broker.extent()).await??;
        let lost = extent.lost_since(self.extent, self.newest);
        if lost.is_some() {
            // Every shard: another lane may have looked before the last messages came, and miss none that are gone.
            mark::doubt_all(&mut self.session).await?;
        }
        // Only now: until it is written down, it is to be found again.
        *self.extent = extent;
        lost.map_or(Ok(()), |why| Err(Broken::Lost(why)))
    }

    /// Fails if another lane has seen that the stream lost something.
    async fn check_no_doubt(&mut self) -> Result<(), Broken> {
        let owned: Vec<i16> = self.owned.keys().copied().collect();
        if mark::is_doubtful(&mut self.session, &owned).await? {
            return Err(Broken::Lost("another lane has seen it".to_owned()));
        }
        Ok(())
    }

    /// The next unpublished events of the shards that are owned, and what is needed to know of their subjects; those in flight
    /// will be known by their ack.
    pub async fn claim(&mut self, in_flight: &HashSet<AggregateKey>) -> Result<Vec<Event>, Broken> {
        if self.owned.is_empty() {
            self.session.ping_if_due().await?;
            return Ok(Vec::new());
        }
        let Claim { events, unknown, reached } = self.read_outbox().await?;
        self.spread = reached.len();
        self.owned.extend(reached);
        for unknown in unknown {
            if self.unknown.insert(unknown.id) {
                warn!(aggregate.id = %unknown.id, "Left an event of {} {} for a newer program", unknown.aggregate, unknown.id);
            }
        }
        let wanted = events.iter().filter(|event| event.version > 1 || self.fresh.contains(&event.shard()));
        let wanted = wanted.map(|event| event.key).filter(|key| !in_flight.contains(key)).collect();
        self.look_up(wanted).await?;
        for event in events.iter().rev() {
            // Rows leave in order: behind one that the stream lacks there are no more that it has.
            if self.fresh.contains(&event.shard()) && self.tips.get(&event.key).is_none_or(|tip| tip.version < event.version) {
                self.fresh.remove(&event.shard());
            }
        }
        Ok(events)
    }

    async fn read_outbox(&mut self) -> Result<Claim, Broken> {
        let floors: Vec<(i16, i64)> = self.owned.iter().map(|(shard, floor)| (*shard, *floor)).collect();
        let without: Vec<AggregateKey> = self.aside.keys().copied().filter(|key| self.is_aside(key)).collect();
        if without.is_empty() {
            claim(&mut self.session, &floors, rows_per_shard(self.spread), self.pace.batch_bytes).await
        } else {
            claim_without(&mut self.session, &floors, &without, self.pace.batch_bytes).await
        }
    }

    /// Whether it is not yet time to try this aggregate again.
    pub fn is_aside(&self, key: &AggregateKey) -> bool {
        self.aside.get(key).is_some_and(|aside| aside.until > Instant::now())
    }

    pub fn set_aside(&mut self, key: AggregateKey, reason: String, diverged: bool) {
        let pause = self.aside.get(&key).map_or(ASIDE_FIRST, |aside| (aside.pause * 2).min(ASIDE_LAST));
        warn!(aggregate.name = %key.kind, aggregate.id = %key.id, diverged, retry_ms = pause.as_millis(), "Set {key} aside: {reason}");
        self.aside.insert(key, SetAside { until: Instant::now() + pause, pause });
        self.plan.status.set_aside(key, Aside { shard: shard_of(key.id), diverged, reason });
    }

    pub fn remember(&mut self, key: AggregateKey, tip: Stored) {
        if self.tips.len() >= TIPS_KEPT {
            self.tips.clear();
        }
        self.tips.insert(key, tip);
    }
}
