//! The live source: hands the events of a durable consumer to the applier of one generation, for as long as the process lives.
//!
//! Its session is a state machine. Each state is a method of [`LiveSource`] that returns the next state.
//!
//! ```text
//!              ┌──────────┐  durable found  ┌──────────┐  an operator paused it  ┌────────┐
//!     start ──▶│ Detached │────────────────▶│ Attached │────────────────────────▶│ Paused │
//!              └──────────┘                 └──────────┘                         └────────┘
//!                ▲   ▲ ▲                         │                                 ▲    │
//!                │   │ └─────────────────────────┼─────────────────────────────────┼────┘ it is resumed
//!                │   │                           ▼                                 │
//!                │   │ the broker or the   ┌───────────┐      an operator pauses it  │
//!                │   └─────────────────────│ Consuming │─────────────────────────────┘
//!                │     durable is gone     └───────────┘─────────────────────┐
//!                │                           │       ▲                       │ the program stops, or the
//!                │   the store fails, too    │       │ the store             │ generation is retired
//!                │   many retries, or mass   ▼       │ answers               ▼
//!                │   poison                ┌───────────┐                 ┌──────────┐      ┌───────┐
//!                └─────────────────────────│  Holding  │                 │ Draining │─────▶│ Ended │
//!                                          └───────────┘                 └──────────┘      └───────┘
//! ```
//!
//! Detached, Holding and Paused have nothing unacknowledged, so that a stop ends them at once.
//!
//! - *Consuming* pulls events, and acknowledges each one after the applier has settled it.
//! - *Holding* and *Paused* have given back every unacknowledged event with a nak and pull nothing. Holding probes (PROTOCOL P4,
//!   decision 0303): it pulls one event after the other until the store takes one.
//! - *Draining* waits for the batches that are being written, acknowledges what they settled, and gives back the rest.
//!
//! An event that a newer program wrote does not end the state *Consuming*: it is given back with a delay, for a newer projector to take
//! it, and the generation shows that it holds until no such event is left. A broker that is lost in any state, or a process that dies,
//! loses nothing: what was not acknowledged is redelivered after `ack_wait`, and applying it again changes nothing.

mod pull;
mod unacknowledged;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::consumer::PullConsumer;
use chrono::{DateTime, Utc};
use events::subject::EVENTS_STREAM;
use tokio::{
    task::JoinError,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    pull::{Pull, Pulled},
    unacknowledged::Unacknowledged,
};
use crate::{
    applier::{Applier, BATCHES_AHEAD, FinishedBatch, Judgement, NewerEvent, Probe, ProbeResult},
    connections::Dependencies,
    projection::Projection,
    running::{FeedState, RunningGeneration},
};

/// How soon a missing durable consumer is looked for again.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);
/// How often a paused source looks whether it was resumed.
const PAUSE_POLL: Duration = Duration::from_millis(500);
/// How soon an event of a newer program is handed out again, to whichever process.
const NEWER_AGAIN: Duration = Duration::from_secs(2);
/// How often the source looks whether such events were acknowledged by another process.
const NEWER_POLL: Duration = Duration::from_secs(1);

/// The delay before the first probe; it doubles with each further one up to [`SLOWEST_PROBE`].
const FIRST_PROBE: Duration = Duration::from_millis(250);
const SLOWEST_PROBE: Duration = Duration::from_secs(4);
/// Timeout of a pull while probing. A pull returns at once, because everything was given back (unless other processes hold the events).
const PROBE_PULL: Duration = Duration::from_secs(1);
/// How many events the first round of probing tries while none is taken; it doubles with each further round up to
/// [`MOST_PROBED`]. The broker hands out what was given back before anything new, and the same events first.
const FIRST_PROBED: usize = 2;
const MOST_PROBED: usize = 64;

/// Feeds one generation of a projection from its durable consumer.
#[derive(Debug)]
pub struct LiveSource<P> {
    applier: Applier<P>,
    running: Arc<RunningGeneration>,
    dependencies: Dependencies,
    /// When the durable consumer was created whose sequences the applier knows.
    attached_to: Option<DateTime<Utc>>,
    /// Events that a newer program wrote, as far as this process met them.
    newer: BTreeMap<u64, String>,
}

enum SessionState {
    Detached,
    Attached(Session),
    Consuming(Session),
    Holding { session: Session, why: String },
    Paused(Session),
    Draining(Session),
    Ended,
}

/// One attachment to the durable consumer.
struct Session {
    pull: Pull,
    unacknowledged: Unacknowledged,
    in_progress_at: Instant,
    in_progress_every: Duration,
}

/// What ended a wait in the state *Consuming*.
enum Wakeup {
    Stop,
    Finished(Result<FinishedBatch, JoinError>),
    Pulled(Pulled),
    Timer,
}

impl<P: Projection> LiveSource<P> {
    pub fn new(dependencies: Dependencies, running: Arc<RunningGeneration>) -> Self {
        let applier = Applier::new(&dependencies, Arc::clone(&running));
        Self { applier, running, dependencies, attached_to: None, newer: BTreeMap::new() }
    }

    /// Runs the state machine until the program stops or the generation is retired.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut state = SessionState::Detached;
        loop {
            let next = match state {
                SessionState::Detached => self.attach(&stop).await,
                SessionState::Attached(session) if self.running.is_paused() => Ok(SessionState::Paused(session)),
                SessionState::Attached(session) => Ok(SessionState::Consuming(session)),
                SessionState::Consuming(session) => self.consume(session, &stop).await,
                SessionState::Holding { session, why } => self.hold(session, why, &stop).await,
                SessionState::Paused(session) => self.wait_while_paused(session, &stop).await,
                SessionState::Draining(session) => self.drain(session).await,
                SessionState::Ended => return Ok(()),
            };
            state = match next {
                Ok(next) => next,
                Err(error) => self.detach(&error, &stop).await,
            };
        }
    }

    /// *Detached*: finds the durable consumer.
    async fn attach(&mut self, stop: &CancellationToken) -> anyhow::Result<SessionState> {
        // A client that has lost its connection may take no request for as long as that lasts.
        match stop.run_until_cancelled(self.open_session()).await {
            Some(session) => Ok(SessionState::Attached(session?)),
            None => Ok(SessionState::Ended),
        }
    }

    async fn open_session(&mut self) -> anyhow::Result<Session> {
        let jetstream = &self.dependencies.jetstream;
        let durable = self.running.name();
        let consumer: PullConsumer = jetstream
            .get_consumer_from_stream(durable, EVENTS_STREAM)
            .await
            .with_context(|| format!("the durable consumer {durable} cannot be reached (`projector provision` makes it)"))?;
        let info = consumer.cached_info();
        let (created, in_progress_every) = (info.created, info.config.ack_wait / 3);
        self.running.set_paused(info.paused);
        if self.attached_to.replace(created) != Some(created) {
            self.applier.forget_all();
            self.newer.clear();
        }
        Ok(Session {
            pull: Pull::open(&consumer, jetstream).await?,
            unacknowledged: Unacknowledged::new(jetstream.client(), &consumer),
            in_progress_at: Instant::now() + in_progress_every,
            in_progress_every,
        })
    }

    /// The attachment is lost, or there is none.
    async fn detach(&mut self, error: &anyhow::Error, stop: &CancellationToken) -> SessionState {
        let why = format!("{error:#}");
        if self.running.set_state(FeedState::Waiting { why: why.clone() }) {
            let (name, generation) = (self.running.name(), self.running.generation().number);
            warn!(projection.name = P::NAME, generation, error = why, "{name} is not connected to its durable consumer: {why}");
        }
        self.applier.abandon();
        tokio::select! {
            () = stop.cancelled() => SessionState::Ended,
            () = sleep(ATTACH_AGAIN) => SessionState::Detached,
        }
    }

    /// *Consuming*: pulls events, and acknowledges what the applier has settled.
    async fn consume(&mut self, mut session: Session, stop: &CancellationToken) -> anyhow::Result<SessionState> {
        if self.running.set_state(FeedState::Consuming) {
            info!(projection.name = P::NAME, generation = self.running.generation().number, "{} consumes", self.running.name());
        }
        loop {
            if self.running.is_paused() {
                return Ok(SessionState::Paused(session));
            }
            self.applier.start_batches(session.unacknowledged.expects_more());
            let has_room = self.applier.has_room();
            if has_room && !session.pull.is_open() {
                session.pull.request_batch(P::LIMITS.events * BATCHES_AHEAD, P::LIMITS.bytes * BATCHES_AHEAD).await?;
            }
            let timer = self.next_timer(&session);
            let wakeup = tokio::select! {
                biased;
                () = stop.cancelled() => Wakeup::Stop,
                Some(finished) = self.applier.next_finished() => Wakeup::Finished(finished),
                pulled = session.pull.next(), if has_room && session.pull.is_open() => Wakeup::Pulled(pulled),
                () = sleep_until(timer) => Wakeup::Timer,
            };
            match wakeup {
                Wakeup::Stop => return Ok(SessionState::Draining(session)),
                Wakeup::Finished(batch) => {
                    let judgement = self.applier.judge(batch.context("the write of a batch ended without a result")?).await?;
                    let hold = self.carry_out(&mut session, judgement).await?;
                    if let Some(why) = hold.or_else(|| self.too_many_retries(&session)) {
                        return Ok(SessionState::Holding { session, why });
                    }
                }
                Wakeup::Pulled(Pulled::Event(message)) => {
                    if let Some(event) = session.unacknowledged.receive(*message) {
                        self.applier.accept(event);
                    }
                }
                Wakeup::Pulled(Pulled::Gone(why)) => anyhow::bail!(why),
                Wakeup::Pulled(Pulled::Over) | Wakeup::Timer => {}
            }
            self.keep_in_progress(&mut session).await?;
            self.forget_newer_up_to(self.running.ack_floor());
        }
    }

    fn next_timer(&self, session: &Session) -> Instant {
        let newer = (!self.newer.is_empty()).then(|| Instant::now() + NEWER_POLL);
        self.applier.next_start().into_iter().chain(newer).fold(session.in_progress_at, Instant::min)
    }

    /// *Holding*: gives everything back, and probes until the store takes an event.
    async fn hold(&mut self, mut session: Session, mut why: String, stop: &CancellationToken) -> anyhow::Result<SessionState> {
        let (name, generation) = (self.running.name().to_owned(), self.running.generation().number);
        let since = self.dependencies.clock.now();
        self.running.set_state(FeedState::Holding { why: why.clone(), since });
        warn!(projection.name = P::NAME, generation, error = why, "{name} holds: {why}");
        self.give_everything_back(&mut session).await?;

        let (mut delay, mut most) = (FIRST_PROBE, FIRST_PROBED);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(SessionState::Ended),
                () = sleep(delay) => {}
            }
            let Some(now) = self.probe(&mut session, most, stop).await? else { break };
            self.give_everything_back(&mut session).await?;
            (delay, most) = ((delay * 2).min(SLOWEST_PROBE), (most * 2).min(MOST_PROBED));
            if now != why {
                warn!(projection.name = P::NAME, generation, error = now, "{name} still holds: {now}");
                self.running.set_state(FeedState::Holding { why: now.clone(), since });
                why = now;
            }
        }
        self.applier.resume_slowly();
        self.running.set_state(FeedState::Consuming);
        let held_ms = (self.dependencies.clock.now() - since).num_milliseconds();
        info!(projection.name = P::NAME, generation, held_ms, "{name} consumes again after {held_ms} ms");
        Ok(SessionState::Consuming(session))
    }

    /// One round of probing: why the store still fails, or `None` if it answers or there is nothing to try.
    async fn probe(&mut self, session: &mut Session, most: usize, stop: &CancellationToken) -> anyhow::Result<Option<String>> {
        let mut round = Probe::default();
        while round.refused() < most && !stop.is_cancelled() {
            let Some(message) = session.pull.one(PROBE_PULL).await? else { break };
            let Some(event) = session.unacknowledged.receive(message) else { break };
            match self.applier.probe(&mut round, event).await? {
                ProbeResult::Refused => self.keep_in_progress(session).await?,
                ProbeResult::Undecided(judgement) => {
                    self.carry_out(session, judgement).await?;
                }
                ProbeResult::Answered(judgement) => return self.carry_out(session, judgement).await,
            }
        }
        Ok(round.into_reason())
    }

    /// *Paused*: gives everything back, and waits until the durable consumer is resumed.
    async fn wait_while_paused(&mut self, mut session: Session, stop: &CancellationToken) -> anyhow::Result<SessionState> {
        let (name, generation) = (self.running.name().to_owned(), self.running.generation().number);
        self.running.set_state(FeedState::Paused);
        info!(projection.name = P::NAME, generation, "{name} is paused");
        self.give_everything_back(&mut session).await?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(SessionState::Ended),
                () = sleep(PAUSE_POLL) => {}
            }
            if !self.running.is_paused() {
                // The durable may have been deleted and made again meanwhile.
                return Ok(SessionState::Detached);
            }
        }
    }

    /// *Draining*: finishes what is being written, and gives back the rest.
    async fn drain(&mut self, mut session: Session) -> anyhow::Result<SessionState> {
        for message in session.pull.finish().await {
            session.unacknowledged.receive(message);
        }
        let judgement = self.applier.drain().await?;
        self.carry_out(&mut session, judgement).await?;
        let given_back = session.unacknowledged.nak_all().await?.len();
        let (name, generation) = (self.running.name(), self.running.generation().number);
        info!(projection.name = P::NAME, generation, given_back, "{name} stopped and gave {given_back} events back");
        Ok(SessionState::Ended)
    }

    /// Stops pulling, lets the batches end that are being written, acknowledges what they settled, and gives back the rest.
    async fn give_everything_back(&mut self, session: &mut Session) -> anyhow::Result<()> {
        for message in session.pull.finish().await {
            session.unacknowledged.receive(message);
        }
        for sequence in self.applier.release().await? {
            session.unacknowledged.ack(sequence).await?;
        }
        for sequence in session.unacknowledged.nak_all().await? {
            self.applier.note_return(sequence);
        }
        Ok(())
    }

    /// Does what a judgement asks for, and returns the reason to hold, if there is one.
    async fn carry_out(&mut self, session: &mut Session, judgement: Judgement) -> anyhow::Result<Option<String>> {
        for sequence in judgement.settled {
            session.unacknowledged.ack(sequence).await?;
            self.newer.remove(&sequence);
        }
        for NewerEvent { sequence, why } in judgement.newer {
            session.unacknowledged.nak_later(sequence, NEWER_AGAIN).await?;
            self.applier.note_return(sequence);
            self.note_newer(sequence, why);
        }
        Ok(judgement.hold)
    }

    fn note_newer(&mut self, sequence: u64, why: String) {
        if self.newer.contains_key(&sequence) {
            return;
        }
        let (name, generation) = (self.running.name(), self.running.generation().number);
        warn!(
            projection.name = P::NAME,
            generation,
            event.sequence = sequence,
            error = why,
            "{name} cannot read an event of a newer program and waits for a newer projector: {why}"
        );
        self.newer.insert(sequence, why);
        self.show_newer();
    }

    /// Events up to this sequence were acknowledged: a newer projector took those that this one could not read.
    fn forget_newer_up_to(&mut self, ack_floor: u64) {
        if self.newer.first_key_value().is_some_and(|(sequence, _)| *sequence <= ack_floor) {
            self.newer.retain(|sequence, _| *sequence > ack_floor);
            self.show_newer();
        }
    }

    fn show_newer(&self) {
        let why = self.newer.values().next().map(|why| match self.newer.len() {
            1 => why.clone(),
            several => format!("{why} (and {} more such events)", several - 1),
        });
        self.running.set_newer(why, self.dependencies.clock.now());
    }

    fn too_many_retries(&self, session: &Session) -> Option<String> {
        let retrying = self.applier.retrying();
        (retrying > session.unacknowledged.retry_limit()).then(|| format!("{retrying} events wait for another try"))
    }

    /// Restarts `ack_wait` of all unacknowledged events, three times within it.
    async fn keep_in_progress(&mut self, session: &mut Session) -> anyhow::Result<()> {
        if Instant::now() >= session.in_progress_at {
            session.unacknowledged.in_progress().await?;
            session.in_progress_at = Instant::now() + session.in_progress_every;
            self.applier.forget_up_to(self.running.ack_floor());
        }
        Ok(())
    }
}
