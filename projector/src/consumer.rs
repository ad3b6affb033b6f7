//! Takes events from the broker and sees each one to its end: decode, apply, judge, answer.
//!
//! Guarantees: an event is acknowledged only after the store has it (or a newer state of its aggregate), or after its dead
//! letter is stored. Dying anywhere in between hands it out again, and applying it again changes nothing. While the store is
//! away the consumer holds: everything is given back, no event is blamed, and one at a time is tried until one succeeds.

mod attempt;
mod hold;
mod open;
mod pace;
mod pull;
mod settle;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use async_nats::jetstream::{self, consumer::PullConsumer};
use chrono::{DateTime, Utc};
use events::subject::EVENTS_STREAM;
use service::clock::Clock;
use sqlx::PgPool;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    attempt::{Attempt, attempt},
    open::Open,
    pace::Pace,
    pull::{Pull, Pulled},
};
use crate::{
    dead_letters::DeadLetters,
    delivery::{Chain, Delivery, coalesce},
    feed::{Feed, Phase},
    mass_poison::MassPoison,
    metrics::Metrics,
    projection::Projection,
    retry::Retries,
    settings::Backoff,
};

/// While more is on its way a batch waits this long for it, then goes as it is.
const LINGER: Duration = Duration::from_millis(20);
/// Batches that are asked for beforehand, so that one is there when a request ends.
const BATCHES_AHEAD: usize = 2;
/// A consumer that is missing is looked for again after this.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);
/// What every feed of the process shares.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub jetstream: jetstream::Context,
    pub db: PgPool,
    pub metrics: Metrics,
    pub clock: Clock,
    pub backoff: Backoff,
}

/// Feeds one generation of one projection, for as long as the process lives.
#[derive(Debug)]
pub struct Consumer<P> {
    projection: Arc<P>,
    around: Surroundings,
    feed: Arc<Feed>,
    dead_letters: DeadLetters,
    retries: Retries,
    /// When the durable consumer was created to which these belong.
    attached_to: Option<DateTime<Utc>>,
    mass_poison: MassPoison,
    /// What it learned of the store outlives an attachment to the broker.
    pace: Pace,
}

/// Why a session came to its end.
#[derive(Debug)]
enum Ended {
    Stopped,
    /// The consumer or the broker is gone; what was handed out will be handed out again.
    Lost(anyhow::Error),
}

/// What the consumer woke up for.
enum Woken {
    Stop,
    Attempted(Result<Attempt, JoinError>),
    Pulled(Pulled),
    Timer,
}

/// One attachment to the durable consumer.
struct Session {
    pull: Pull,
    open: Open,
    /// Handed out, and not yet tried.
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    last_came: Instant,
    attempts: JoinSet<Attempt>,
    more_time_at: Instant,
    more_time_every: Duration,
}

impl<P: Projection> Consumer<P> {
    pub fn new(projection: P, around: Surroundings, feed: Arc<Feed>) -> Self {
        let dead_letters = DeadLetters { jetstream: around.jetstream.clone(), projection: P::NAME, generation: feed.generation };
        Self {
            projection: Arc::new(projection),
            around,
            feed,
            dead_letters,
            retries: Retries::default(),
            attached_to: None,
            mass_poison: MassPoison::default(),
            pace: Pace::new(P::LIMITS),
        }
    }

    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            // A client that has lost its connection may take no question for as long as that lasts.
            let Some(attached) = stop.run_until_cancelled(self.attach()).await else { break };
            let ended = match attached {
                Ok(session) => self.consume(session, &stop).await,
                Err(error) => Ended::Lost(error),
            };
            let Ended::Lost(error) = ended else { break };
            if self.feed.set_phase(Phase::Waiting { why: format!("{error:#}") }) {
                warn!(
                    projection.name = P::NAME,
                    generation = self.feed.generation,
                    error = format!("{error:#}"),
                    "{} waits: {error:#}",
                    P::NAME
                );
            }
            self.retries.clear_waiting();
            self.feed.set_waiting(0);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(ATTACH_AGAIN) => {}
            }
        }
        Ok(())
    }

    async fn attach(&mut self) -> anyhow::Result<Session> {
        let jetstream = &self.around.jetstream;
        let durable = &self.feed.durable;
        let durable: PullConsumer = jetstream
            .get_consumer_from_stream(durable, EVENTS_STREAM)
            .await
            .with_context(|| format!("the durable consumer {durable} cannot be reached (`projector provision` makes it)"))?;
        let info = durable.cached_info();
        let more_time_every = info.config.ack_wait / 3;
        if self.attached_to.replace(info.created) != Some(info.created) {
            self.retries.forget_all();
        }
        Ok(Session {
            pull: Pull::open(&durable, jetstream).await?,
            open: Open::new(jetstream.client(), &durable),
            queue: VecDeque::new(),
            queued_bytes: 0,
            last_came: Instant::now(),
            attempts: JoinSet::new(),
            more_time_at: Instant::now() + more_time_every,
            more_time_every,
        })
    }

    async fn consume(&mut self, mut session: Session, stop: &CancellationToken) -> Ended {
        info!(projection.name = P::NAME, generation = self.feed.generation, "{} consumes", P::NAME);
        self.feed.set_phase(Phase::Consuming);
        loop {
            match self.step(&mut session, stop).await {
                Ok(None) => {}
                Ok(Some(Next::Hold(why))) => match self.hold(session, why, stop).await {
                    Ok(Some(resumed)) => session = resumed,
                    Ok(None) => return Ended::Stopped,
                    Err(error) => return Ended::Lost(error),
                },
                Ok(Some(Next::Stop)) => {
                    return match self.finish(session).await {
                        Ok(()) => Ended::Stopped,
                        Err(error) => Ended::Lost(error),
                    };
                }
                Err(error) => return Ended::Lost(error),
            }
        }
    }

    /// Starts what can be started, then waits for whatever happens next.
    async fn step(&mut self, session: &mut Session, stop: &CancellationToken) -> anyhow::Result<Option<Next>> {
        self.start_attempts(session);
        if !session.pull.is_asking() && session.has_room::<P>() {
            session.pull.ask(P::LIMITS.events * BATCHES_AHEAD, P::LIMITS.bytes * BATCHES_AHEAD).await?;
        }
        let timer = self.next_timer(session);
        let has_room = session.has_room::<P>();
        let woken = tokio::select! {
            biased;
            () = stop.cancelled() => Woken::Stop,
            Some(attempted) = session.attempts.join_next() => Woken::Attempted(attempted),
            pulled = session.pull.next(), if has_room && session.pull.is_asking() => Woken::Pulled(pulled),
            () = sleep_until(timer) => Woken::Timer,
        };
        match woken {
            Woken::Stop => return Ok(Some(Next::Stop)),
            Woken::Attempted(attempted) => {
                let attempted = attempted.context("an attempt ended without an outcome")?;
                return self.settle(session, attempted).await;
            }
            Woken::Pulled(Pulled::Event(message)) => session.receive(*message),
            Woken::Pulled(Pulled::Gone(why)) => anyhow::bail!(why),
            Woken::Pulled(Pulled::Over) | Woken::Timer => {}
        }
        self.ask_for_more_time(session).await?;
        Ok(None)
    }

    /// If it is time for that.
    async fn ask_for_more_time(&mut self, session: &mut Session) -> anyhow::Result<()> {
        if Instant::now() >= session.more_time_at {
            session.open.in_progress().await?;
            session.more_time_at = Instant::now() + session.more_time_every;
            self.retries.forget_up_to(self.feed.floor());
        }
        Ok(())
    }

    fn next_timer(&self, session: &Session) -> Instant {
        let mut timer = session.more_time_at;
        if session.attempts.len() < self.pace.attempts() {
            timer = self.retries.next_due().map_or(timer, |due| due.min(timer));
            if !session.queue.is_empty() {
                timer = timer.min(session.last_came + LINGER);
            }
        }
        timer
    }

    /// Starts as many attempts as may run: what is due again first, then what is new.
    fn start_attempts(&mut self, session: &mut Session) {
        let now = Instant::now();
        while session.attempts.len() < self.pace.attempts() {
            let mut chains = Vec::new();
            let mut aggregates = HashSet::new();
            let mut bytes = 0;
            while chains.len() < self.pace.writes() && bytes < P::LIMITS.bytes {
                // A batch has each aggregate once.
                let is_new = |chain: &Chain| chain.head().aggregate().is_none_or(|key| aggregates.insert(key));
                let Some(chain) = self.retries.take_due(now, is_new) else { break };
                bytes += chain.head().size();
                chains.push(chain);
            }
            self.feed.set_waiting(self.retries.waiting());
            if chains.is_empty() {
                chains = self.next_batch(session, now);
            }
            if chains.is_empty() {
                return;
            }
            session.attempts.spawn(attempt(Arc::clone(&self.projection), chains));
        }
    }

    /// The next new events, if it is time for them: enough for a batch, or nothing more to wait for.
    fn next_batch(&self, session: &mut Session, now: Instant) -> Vec<Chain> {
        let Some(last) = session.queue.back() else { return Vec::new() };
        let enough = session.queue.len() >= self.pace.writes() || session.queued_bytes >= P::LIMITS.bytes;
        let more_comes = last.pending > 0 && !session.open.is_full() && now < session.last_came + LINGER;
        if !enough && more_comes {
            return Vec::new();
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        let (mut writes, mut aggregates) = (0, HashSet::new());
        while let Some(next) = session.queue.front() {
            let suspect = self.retries.is_suspect(next.sequence, next.delivered);
            // Several events of one aggregate are one write.
            let follows = next.aggregate().is_some_and(|key| !aggregates.insert(key));
            let full = batch.len() >= P::LIMITS.events || (writes >= self.pace.writes() && !follows);
            if !batch.is_empty() && (suspect || full || bytes + next.size() > P::LIMITS.bytes) {
                break;
            }
            bytes += next.size();
            writes += usize::from(!follows);
            batch.extend(session.queue.pop_front());
            if suspect {
                break;
            }
        }
        session.queued_bytes -= bytes;
        coalesce(batch)
    }

    /// Told to stop: finishes what runs, gives the rest back.
    async fn finish(&mut self, mut session: Session) -> anyhow::Result<()> {
        session.queue.clear();
        self.retries.clear_waiting();
        for message in session.pull.finish().await {
            session.open.receive(message);
        }
        while let Some(attempted) = session.attempts.join_next().await {
            self.settle(&mut session, attempted.context("an attempt ended without an outcome")?).await?;
        }
        let given_back = session.open.give_back().await?.len();
        info!(
            projection.name = P::NAME,
            generation = self.feed.generation,
            given_back,
            "{} stopped and gave {given_back} events back",
            P::NAME
        );
        Ok(())
    }
}

/// Where a step leads, if not to the next one.
enum Next {
    Hold(String),
    Stop,
}

impl Session {
    fn receive(&mut self, message: jetstream::Message) {
        self.last_came = Instant::now();
        if let Some(delivery) = self.open.receive(message) {
            self.queued_bytes += delivery.size();
            self.queue.push_back(delivery);
        }
    }

    fn has_room<P: Projection>(&self) -> bool {
        self.queue.len() < P::LIMITS.events * BATCHES_AHEAD && self.queued_bytes < P::LIMITS.bytes * BATCHES_AHEAD
    }
}
