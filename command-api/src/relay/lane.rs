//! One lane: take shards, claim their events, publish, settle; again and again, until something breaks.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::time::Duration;

use events::AggregateKey;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::broker::{Answer, Broker};
use super::claim::{Claim, Event, claim, from_journal, journal_id};
use super::mark::{self, Kept, Mark};
use super::ownership::Session;
use super::resolve::{Last, Step, next_step};
use super::status::Aside;
use super::{Broken, Metrics, RETRY_FIRST, RETRY_LAST, Status};

/// Wake-ups can be missed (the process that commits is often not the shard's owner); polling finds the rest.
const POLL: Duration = Duration::from_millis(25);

/// The poll looks beyond the last row it saw: the head of a table where much was deleted is slow to read. Rows that
/// committed late lie before it, and are found from the start this often.
const SWEEP: Duration = Duration::from_secs(1);

/// A few shards at a time, so that the processes that are left share what a dead one owned.
const TAKE_AT_ONCE: usize = 2;
const TAKE_EVERY: Duration = Duration::from_millis(100);

/// Looks at the subject and acts; more often than this means that somebody else publishes to it all the time.
const SETTLE_TRIES: u32 = 5;

const ASIDE_FIRST: Duration = Duration::from_secs(1);
const ASIDE_LAST: Duration = Duration::from_secs(60);

/// Aggregates whose last message is remembered. Forgetting one costs a read.
const TIPS_KEPT: usize = 100_000;

/// What a lane is started with.
pub struct Plan {
    pub number: i16,
    /// The shards it may own.
    pub shards: Vec<i16>,
    pub database: PgConnectOptions,
    pub nats_url: String,
    pub wake: watch::Receiver<()>,
    pub status: Status,
    pub metrics: Metrics,
}

/// Works until told to stop, beginning again whenever something breaks.
pub async fn run(plan: Plan, stop: CancellationToken) {
    let mut retry = RETRY_FIRST;
    while !stop.is_cancelled() {
        let Err(broken) = attempt(&plan, &stop, &mut retry).await else { continue };
        plan.status.released(&plan.shards);
        plan.status.waiting(plan.number, broken.to_string());
        warn!(relay.lane = plan.number, error = %broken, retry_ms = retry.as_millis(), "Will begin again: {broken}");
        let _stopped = stop.run_until_cancelled(sleep(retry)).await;
        retry = (retry * 2).min(RETRY_LAST);
    }
    plan.status.released(&plan.shards);
}

async fn attempt(plan: &Plan, stop: &CancellationToken, retry: &mut Duration) -> Result<(), Broken> {
    // The broker first: a process that cannot publish must not keep shards from one that can.
    let Some(opened) = stop
        .run_until_cancelled(async {
            Ok::<_, Broken>((Broker::connect(&plan.nats_url).await?, Session::open(&plan.database).await?))
        })
        .await
    else {
        return Ok(());
    };
    let (broker, session) = opened?;
    let mut lane = Lane {
        plan,
        broker,
        session,
        owned: BTreeMap::new(),
        tips: HashMap::new(),
        aside: HashMap::new(),
        wake: plan.wake.clone(),
        swept: Instant::now(),
        take_next: 0,
    };
    plan.status.working(plan.number);
    *retry = RETRY_FIRST;
    let outcome = lane.work(stop).await;
    // A session that is lost has nothing to release.
    if !matches!(outcome, Err(Broken::Session(_))) {
        lane.session.close().await;
    }
    outcome
}

/// The last message of an aggregate's subject, proven to be the journal's.
#[derive(Debug, Clone, Copy)]
struct Tip {
    version: u64,
    sequence: u64,
}

struct SetAside {
    until: Instant,
    pause: Duration,
}

struct Lane<'a> {
    plan: &'a Plan,
    broker: Broker,
    session: Session,
    /// The shards that the session holds the locks of, each with the last row seen.
    owned: BTreeMap<i16, i64>,
    tips: HashMap<AggregateKey, Tip>,
    aside: HashMap<AggregateKey, SetAside>,
    wake: watch::Receiver<()>,
    swept: Instant,
    take_next: usize,
}

/// What became of one event.
enum Settled {
    Stored(Mark),
    Aside { reason: String, diverged: bool },
}

impl Lane<'_> {
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Broken> {
        let mut taken = Instant::now().checked_sub(TAKE_EVERY).unwrap_or_else(Instant::now);
        while !stop.is_cancelled() {
            self.broker.check_connected()?;
            if self.owned.len() < self.plan.shards.len() && taken.elapsed() >= TAKE_EVERY {
                self.take().await?;
                taken = Instant::now();
            }
            if self.swept.elapsed() >= SWEEP {
                self.broker.check_same_stream().await?;
                self.owned.values_mut().for_each(|floor| *floor = 0);
                self.swept = Instant::now();
            }
            let claimed = self.claim().await?;
            if claimed.reached.is_empty() {
                self.idle(stop).await?;
            } else {
                self.ship(claimed).await?;
            }
        }
        Ok(())
    }

    /// Takes a few of the shards that nobody owns, and makes sure that the stream has what it acknowledged for them.
    async fn take(&mut self) -> Result<(), Broken> {
        let missing: Vec<i16> = self.plan.shards.iter().copied().filter(|shard| !self.owned.contains_key(shard)).collect();
        self.take_next = (self.take_next + TAKE_AT_ONCE) % missing.len();
        let wanted: Vec<i16> =
            missing.iter().cycle().skip(self.take_next).take(TAKE_AT_ONCE.min(missing.len())).copied().collect();
        for shard in self.session.try_take(&wanted).await? {
            let mark = match mark::check(&mut self.session, &self.broker, shard).await? {
                Kept::Unmarked => None,
                Kept::All(mark) => Some(mark),
                Kept::Lost(why) => return Err(Broken::Waiting(format!("shard {shard}: {why}"))),
            };
            self.owned.insert(shard, 0);
            self.plan.status.owns(shard, mark);
            info!(relay.shard = shard, relay.lane = self.plan.number, "Took shard {shard}");
        }
        Ok(())
    }

    async fn claim(&mut self) -> Result<Claim, Broken> {
        if self.owned.is_empty() {
            self.session.ping_if_due().await?;
            return Ok(Claim::default());
        }
        let floors: Vec<(i16, i64)> = self.owned.iter().map(|(shard, floor)| (*shard, *floor)).collect();
        let now = Instant::now();
        let without: Vec<AggregateKey> = self.aside.iter().filter(|(_, aside)| aside.until > now).map(|(key, _)| *key).collect();
        let claimed = claim(&mut self.session, &floors, &without).await?;
        for (shard, seq) in &claimed.reached {
            self.owned.insert(*shard, *seq);
        }
        for unknown in &claimed.unknown {
            warn!(aggregate = unknown.aggregate, aggregate.id = %unknown.id, "Left an event of a newer program in the outbox");
        }
        Ok(claimed)
    }

    async fn idle(&mut self, stop: &CancellationToken) -> Result<(), Broken> {
        let Self { wake, broker, .. } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = broker.lost().cancelled() => {}
            () = sleep(POLL) => {}
            () = async { if wake.changed().await.is_err() { pending::<()>().await } } => {}
        }
        Ok(())
    }

    /// Publishes what was claimed, then deletes what the broker is proven to hold.
    async fn ship(&mut self, claimed: Claim) -> Result<(), Broken> {
        let mut done = Vec::with_capacity(claimed.events.len());
        let mut marks: BTreeMap<i16, Mark> = BTreeMap::new();
        let now = Instant::now();
        for event in &claimed.events {
            // An event behind one that was set aside a moment ago.
            if self.aside.get(&event.key).is_some_and(|aside| aside.until > now) {
                continue;
            }
            match self.settle(event).await? {
                Settled::Stored(mark) => {
                    if self.aside.remove(&event.key).is_some() {
                        self.plan.status.taken_back(&event.key);
                    }
                    done.push((event.shard(), event.seq));
                    let newest = marks.entry(event.shard()).or_insert(mark);
                    if newest.sequence <= mark.sequence {
                        *newest = mark;
                    }
                }
                Settled::Aside { reason, diverged } => self.set_aside(event, reason, diverged),
            }
        }
        let marks: Vec<(i16, Mark)> = marks.into_iter().collect();
        mark::settle(&mut self.session, self.broker.stream_created(), &done, &marks).await?;
        self.plan.metrics.published(done.len());
        for (shard, mark) in marks {
            self.plan.status.owns(shard, Some(mark));
        }
        Ok(())
    }

    fn set_aside(&mut self, event: &Event, reason: String, diverged: bool) {
        let pause = self.aside.get(&event.key).map_or(ASIDE_FIRST, |aside| (aside.pause * 2).min(ASIDE_LAST));
        warn!(aggregate = %event.key, version = event.version, diverged, retry_ms = pause.as_millis(), "Set {} aside: {reason}", event.key);
        self.aside.insert(event.key, SetAside { until: Instant::now() + pause, pause });
        self.plan.status.set_aside(event.key, Aside { shard: event.shard(), diverged, reason });
    }

    /// Makes sure that the stream holds one event, or says why not.
    async fn settle(&mut self, event: &Event) -> Result<Settled, Broken> {
        let subject = event.key.subject();
        let mut message_id = event.event_id.to_string();
        let mut expected = match self.tips.get(&event.key) {
            Some(tip) if tip.version + 1 == event.version => Some(tip.sequence),
            None if event.version == 1 => Some(0),
            Some(_) | None => None,
        };
        for _ in 0..SETTLE_TRIES {
            if let Some(sequence) = expected.take() {
                match self.publish(event, &message_id, sequence).await? {
                    Ok(mark) => return Ok(Settled::Stored(mark)),
                    Err(Unstored::Contradicted) => {}
                    Err(Unstored::Duplicate) => message_id = self.broker.repair_id(event.event_id),
                    Err(Unstored::Refused(reason)) => return Ok(Settled::Aside { reason, diverged: false }),
                }
            }
            self.session.ping_if_due().await?;
            let last = self.broker.last(&subject).await?;
            let journal = match last {
                Last::Event { version, .. } => journal_id(&mut self.session, event.key, version).await?,
                Last::Nothing | Last::Foreign { .. } => None,
            };
            match next_step(event.version, last, journal) {
                Step::Publish { expected: sequence } => expected = Some(sequence),
                Step::FillGap { after, expected: sequence } => match self.fill(event, after, sequence).await? {
                    Filled::To(sequence) => expected = Some(sequence),
                    Filled::LookAgain => {}
                    Filled::Cannot(reason) => return Ok(Settled::Aside { reason, diverged: false }),
                },
                Step::AlreadyThere { sequence, version, event_id } => {
                    self.remember(event.key, Tip { version, sequence });
                    return Ok(Settled::Stored(Mark { key: event.key, version, event_id, sequence }));
                }
                Step::Diverged(divergence) => return Ok(Settled::Aside { reason: divergence.to_string(), diverged: true }),
            }
        }
        Ok(Settled::Aside { reason: format!("somebody else keeps publishing to {subject}"), diverged: false })
    }

    /// Publishes the versions between what the stream has and this event, from the journal.
    async fn fill(&mut self, event: &Event, after: u64, expected: u64) -> Result<Filled, Broken> {
        let (mut version, mut sequence) = (after, expected);
        info!(aggregate = %event.key, after, before = event.version, "Filling a gap of {} from the journal", event.key);
        while version + 1 < event.version {
            let missing = from_journal(&mut self.session, event.key, version, event.version).await?;
            if missing.is_empty() {
                return Ok(Filled::Cannot(format!("the journal lacks version {}", version + 1)));
            }
            for event in &missing {
                if event.version != version + 1 {
                    return Ok(Filled::Cannot(format!("the journal lacks version {}", version + 1)));
                }
                let message_id = self.broker.repair_id(event.event_id);
                match self.publish(event, &message_id, sequence).await? {
                    Ok(mark) => (version, sequence) = (mark.version, mark.sequence),
                    Err(Unstored::Contradicted | Unstored::Duplicate) => return Ok(Filled::LookAgain),
                    Err(Unstored::Refused(reason)) => return Ok(Filled::Cannot(reason)),
                }
                self.session.ping_if_due().await?;
            }
        }
        Ok(Filled::To(sequence))
    }

    async fn publish(&mut self, event: &Event, message_id: &str, expected: u64) -> Result<Result<Mark, Unstored>, Broken> {
        let answer = self.session.keep_while(self.broker.publish(event, message_id, expected)).await??;
        Ok(match answer {
            Answer::Stored { sequence } => {
                self.remember(event.key, Tip { version: event.version, sequence });
                Ok(Mark { key: event.key, version: event.version, event_id: event.event_id, sequence })
            }
            Answer::Contradicted => Err(Unstored::Contradicted),
            Answer::Duplicate => Err(Unstored::Duplicate),
            Answer::Refused(reason) => Err(Unstored::Refused(reason)),
            Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
        })
    }

    fn remember(&mut self, key: AggregateKey, tip: Tip) {
        if self.tips.len() >= TIPS_KEPT {
            self.tips.clear();
        }
        self.tips.insert(key, tip);
    }
}

enum Unstored {
    Contradicted,
    Duplicate,
    Refused(String),
}

enum Filled {
    To(u64),
    LookAgain,
    Cannot(String),
}
