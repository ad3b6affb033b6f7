//! Applies events to one generation of a projection, and judges the results.
//!
//! An applier does not know where its events come from. A source hands it events and asks for the next step; the applier batches
//! them, writes the batches, and returns a [`Judgement`]: which events are settled, so that the source may acknowledge them
//! where they came from, and whether to hold. What it has not settled stays with it until it is, or until the source takes
//! everything back with [`Applier::release`].
//!
//! An event is settled only after the store has it, or a newer state of its aggregate, or after its dead letter is stored.

mod batch_pace;
mod mass_poison;
mod probe;
mod retries;
mod verdict;
mod write_batch;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use service::clock::Clock;
use sqlx::PgPool;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tracing::{debug, error, warn};

use self::{
    batch_pace::BatchPace,
    mass_poison::MassPoison,
    retries::{EventTries, Retries},
    verdict::{FailureVerdict, jittered},
    write_batch::write_batch,
};
pub use self::{
    probe::{Probe, ProbeResult},
    write_batch::FinishedBatch,
};
use crate::{
    connections::Dependencies,
    dead_letters::{DeadLetterClass, DeadLetterReason, DeadLetters},
    generations,
    projection::{EventFailure, Projection, ProjectionKind, WriteEffect},
    running::RunningGeneration,
    settings::Backoff,
    source_event::{EventGroup, SourceEvent, coalesce, in_version_order},
};

/// While its source expects more events, a batch that is not full waits this long for them.
const LINGER: Duration = Duration::from_millis(20);
/// Batches that a source hands over beforehand, so that one is there when a write ends.
pub const BATCHES_AHEAD: usize = 2;

/// Applies events to one generation of a projection.
#[derive(Debug)]
pub struct Applier<P> {
    projection: Arc<P>,
    running: Arc<RunningGeneration>,
    db: PgPool,
    clock: Clock,
    backoff: Backoff,
    dead_letters: DeadLetters,
    /// Accepted and not yet tried.
    queue: VecDeque<SourceEvent>,
    queued_bytes: usize,
    last_accepted: Instant,
    writing: JoinSet<FinishedBatch>,
    retries: Retries,
    mass_poison: MassPoison,
    /// Kept when the source reconnects, because it describes the store, not the connection.
    pace: BatchPace,
}

/// What the source of the events has to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Events that are finished with: their source may acknowledge them.
    pub settled: Vec<u64>,
    /// Events that a newer program wrote. Their source offers them again later, to whichever process takes them: none of this one's
    /// tries is counted, and no dead letter is written.
    pub newer: Vec<NewerEvent>,
    /// Why nothing can be written for now. The source takes back everything that is not settled, and probes.
    pub hold: Option<String>,
}

/// An event that only a newer program can read.
#[derive(Debug, PartialEq, Eq)]
pub struct NewerEvent {
    pub sequence: u64,
    /// For people.
    pub why: String,
}

impl Judgement {
    fn merge(&mut self, later: Self) {
        self.settled.extend(later.settled);
        self.newer.extend(later.newer);
        self.hold = self.hold.take().or(later.hold);
    }
}

impl<P: Projection> Applier<P> {
    pub fn new(dependencies: &Dependencies, running: Arc<RunningGeneration>) -> Self {
        let Dependencies { jetstream, stores, clock, backoff, .. } = dependencies;
        Self {
            projection: Arc::new(P::open(stores, running.generation())),
            db: stores.db.clone(),
            clock: *clock,
            backoff: *backoff,
            dead_letters: DeadLetters::new(jetstream.clone(), running.generation().clone()),
            running,
            queue: VecDeque::new(),
            queued_bytes: 0,
            last_accepted: Instant::now(),
            writing: JoinSet::new(),
            retries: Retries::default(),
            mass_poison: MassPoison::default(),
            pace: BatchPace::new(P::LIMITS),
        }
    }

    /// Takes one event from the source.
    pub fn accept(&mut self, event: SourceEvent) {
        self.last_accepted = Instant::now();
        self.queued_bytes += event.size();
        self.queue.push_back(event);
    }

    /// Whether the source should go on handing over events.
    pub fn has_room(&self) -> bool {
        self.queue.len() < P::LIMITS.events * BATCHES_AHEAD && self.queued_bytes < P::LIMITS.bytes * BATCHES_AHEAD
    }

    /// How many events wait for another try.
    pub fn retrying(&self) -> usize {
        self.retries.waiting()
    }

    /// Starts as many batches as may be written at the same time: first what is due again, then what is new. `more_expected` says
    /// whether the source has more events on their way.
    pub fn start_batches(&mut self, more_expected: bool) {
        let now = Instant::now();
        while self.writing.len() < self.pace.in_flight() {
            let mut groups = self.due_batch(now);
            self.running.set_retrying(self.retries.waiting());
            if groups.is_empty() {
                groups = self.next_batch(now, more_expected);
            }
            if groups.is_empty() {
                return;
            }
            self.writing.spawn(write_batch(Arc::clone(&self.projection), groups));
        }
    }

    /// When [`Self::start_batches`] has something to do at the latest, if nothing happens before.
    pub fn next_start(&self) -> Option<Instant> {
        if self.writing.len() >= self.pace.in_flight() {
            return None;
        }
        let linger = (!self.queue.is_empty()).then(|| self.last_accepted + LINGER);
        self.retries.next_due().into_iter().chain(linger).min()
    }

    fn due_batch(&mut self, now: Instant) -> Vec<EventGroup> {
        let mut groups = Vec::new();
        let mut aggregates = HashSet::new();
        let mut bytes = 0;
        while groups.len() < self.pace.writes() && bytes < P::LIMITS.bytes {
            // A batch of a state projection has each aggregate once.
            let fits = |group: &EventGroup| {
                P::KIND == ProjectionKind::Ledger || group.head().aggregate().is_none_or(|key| aggregates.insert(key))
            };
            let Some(group) = self.retries.take_due(now, fits) else { break };
            bytes += group.head().size();
            groups.push(group);
        }
        groups
    }

    /// The next new events, if there are enough for a batch or nothing more is worth waiting for.
    fn next_batch(&mut self, now: Instant, more_expected: bool) -> Vec<EventGroup> {
        let full = self.queue.len() >= self.pace.writes() || self.queued_bytes >= P::LIMITS.bytes;
        if self.queue.is_empty() || (!full && more_expected && now < self.last_accepted + LINGER) {
            return Vec::new();
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        let (mut writes, mut aggregates) = (0, HashSet::new());
        while let Some(next) = self.queue.front() {
            let suspect = self.retries.is_suspect(next);
            // Several events of one aggregate are one write of a state projection.
            let coalesced = P::KIND == ProjectionKind::State && next.aggregate().is_some_and(|key| !aggregates.insert(key));
            let full = batch.len() >= P::LIMITS.events || (writes >= self.pace.writes() && !coalesced);
            if !batch.is_empty() && (suspect || full || bytes + next.size() > P::LIMITS.bytes) {
                break;
            }
            bytes += next.size();
            writes += usize::from(!coalesced);
            batch.extend(self.queue.pop_front());
            if suspect {
                break;
            }
        }
        self.queued_bytes -= bytes;
        match P::KIND {
            ProjectionKind::State => coalesce(batch),
            ProjectionKind::Ledger => in_version_order(batch),
        }
    }

    /// The next batch whose write ends; `None` while none is written. Nothing is lost if this is not awaited to its end.
    pub async fn next_finished(&mut self) -> Option<Result<FinishedBatch, JoinError>> {
        self.writing.join_next().await
    }

    /// Judges the results of a batch, and does what the verdicts ask for, apart from acknowledging.
    pub async fn judge(&mut self, batch: FinishedBatch) -> anyhow::Result<Judgement> {
        self.running.metrics.apply_duration.observe(batch.took.as_secs_f64());
        let mut judgement = Judgement::default();
        let results = match batch.results {
            Ok(results) => results,
            Err(systemic) => {
                self.pace.lost(batch.groups.len());
                judgement.hold = Some(systemic.to_string());
                return Ok(judgement);
            }
        };
        let strained = results.iter().any(|result| matches!(result, Err(EventFailure::Transient(_))));
        self.pace.answered(batch.groups.len(), batch.took, strained);

        let mut failed = Vec::new();
        for (group, result) in batch.groups.into_iter().zip(results) {
            match result {
                Ok(effect) => self.settle_applied(&group, effect, &mut judgement),
                Err(failure) => failed.push((group, failure)),
            }
        }
        judgement.hold = self.too_much_poison(&failed).await?;
        for (group, failure) in failed {
            if judgement.hold.is_some() {
                // The source takes the others back, unjudged.
                break;
            }
            self.judge_failure(group, failure, &mut judgement).await;
        }
        self.running.set_retrying(self.retries.waiting());
        Ok(judgement)
    }

    /// The store has the newest event of the group, so all of them are settled.
    fn settle_applied(&mut self, group: &EventGroup, effect: WriteEffect, judgement: &mut Judgement) {
        let applied = u64::from(effect == WriteEffect::Applied);
        self.running.metrics.applied.inc_by(applied);
        self.running.metrics.superseded.inc_by(group.len() as u64 - applied);
        self.running.add_applied(1);
        self.mass_poison.note_applied();
        for sequence in group.sequences() {
            self.retries.forget(sequence);
            judgement.settled.push(sequence);
        }
    }

    async fn judge_failure(&mut self, group: EventGroup, failure: EventFailure, judgement: &mut Judgement) {
        let head = group.head();
        let tries = match failure {
            EventFailure::Newer { .. } => EventTries::default(),
            EventFailure::Transient(_) | EventFailure::Poison(_) => {
                self.retries.count_failure(head.sequence, self.clock.now(), self.running.applied())
            }
        };
        let others_applied = tries.applied_before.is_some_and(|before| self.running.applied() > before);
        let (id, error) = (head.event_id(), failure.to_string());
        match FailureVerdict::of(&failure, tries.failed, others_applied, &self.backoff) {
            FailureVerdict::RetryAfter(at_most) => {
                let delay = jittered(at_most);
                self.running.metrics.retries.inc();
                warn!(
                    projection.name = P::NAME,
                    generation = self.running.generation().number,
                    event.id = id,
                    attempt = tries.failed,
                    delay_ms = delay.as_millis(),
                    error,
                    "Will try event {id} again: {error}"
                );
                self.retries.wait(Instant::now() + delay, group);
            }
            FailureVerdict::DeadLetter(class) => {
                let first_failed_at = tries.first_failed_at.unwrap_or_else(|| self.clock.now());
                let reason = DeadLetterReason { class, error, attempts: tries.failed, first_failed_at };
                let (head, older) = group.split();
                if let Err(error) = self.record_failed(&head, &reason).await {
                    judgement.hold = Some(format!("the dead letter of event {id} cannot be stored: {error:#}"));
                    return;
                }
                self.retries.forget(head.sequence);
                judgement.settled.push(head.sequence);
                self.requeue(older);
            }
            FailureVerdict::LeaveToNewer => {
                // The older events of the group take its place.
                let (head, older) = group.split();
                judgement.newer.push(NewerEvent { sequence: head.sequence, why: format!("event {id}: {error}") });
                self.requeue(older);
            }
            FailureVerdict::Hold => {
                judgement.hold = Some(format!("event {id} failed {} times and no other was applied: {error}", tries.failed));
            }
        }
    }

    /// Puts events of a group, newest first, back to the front of the queue.
    fn requeue(&mut self, older: Vec<SourceEvent>) {
        for event in older {
            self.queued_bytes += event.size();
            self.queue.push_front(event);
        }
    }

    /// Stores the dead letter of an event. Only the serving generation writes dead letters; another one is marked dirty (PROTOCOL P6).
    async fn record_failed(&self, event: &SourceEvent, reason: &DeadLetterReason) -> anyhow::Result<()> {
        let (id, generation, error) = (event.event_id(), self.running.generation(), &reason.error);
        if self.running.is_serving() {
            self.dead_letters.store(event, reason).await?;
            match reason.class {
                DeadLetterClass::Poison => &self.running.metrics.poison,
                DeadLetterClass::Exhausted => &self.running.metrics.exhausted,
            }
            .inc();
            error!(
                projection.name = P::NAME,
                generation = generation.number,
                event.id = id,
                event.sequence = event.sequence,
                event.subject = event.subject(),
                class = reason.class.as_str(),
                attempts = reason.attempts,
                error,
                "Event {id} became a dead letter: {error}"
            );
            return Ok(());
        }
        generations::mark_dirty(&self.db, generation).await?;
        self.running.metrics.skipped.inc();
        error!(
            projection.name = P::NAME,
            generation = generation.number,
            event.id = id,
            event.sequence = event.sequence,
            error,
            "Skipped event {id}; {} is dirty: {error}",
            generation.name()
        );
        Ok(())
    }

    /// Why to hold, if so many aggregates have suddenly become poison that the projector or the mapping is at fault. Aggregates that
    /// have dead letters from before do not count: a replay meets them all again.
    async fn too_much_poison(&mut self, failed: &[(EventGroup, EventFailure)]) -> anyhow::Result<Option<String>> {
        let poison: HashMap<&str, (&SourceEvent, &EventFailure)> = failed
            .iter()
            .filter(|(_, failure)| matches!(failure, EventFailure::Poison(_)))
            .map(|(group, failure)| (group.head().subject(), (group.head(), failure)))
            .collect();
        for subject in poison.keys() {
            self.mass_poison.note_poison(subject);
        }
        if poison.is_empty() || self.mass_poison.suspicious().is_none() {
            return Ok(None);
        }
        for (subject, (event, _)) in &poison {
            if self.dead_letters.has_some_of_aggregate(event, DeadLetterClass::Poison).await? {
                debug!(projection.name = P::NAME, event.subject = subject, "{subject} has dead letters from before");
                self.mass_poison.forget(subject);
            }
        }
        let Some(suspicious) = self.mass_poison.suspicious() else { return Ok(None) };
        let example = poison.iter().find(|(subject, _)| suspicious.contains(*subject));
        Ok(example.map(|(subject, (_, failure))| {
            format!(
                "events of {} aggregates cannot be applied, which is more than can be wrong with events; one is {subject}: {failure}",
                suspicious.len()
            )
        }))
    }

    /// Ends everything: waits for the batches that are being written and forgets what is queued or waits for a try. Returns the
    /// events that were applied meanwhile; failures are not counted. The source takes back all others.
    pub async fn release(&mut self) -> anyhow::Result<Vec<u64>> {
        self.forget_queued();
        let mut judgement = Judgement::default();
        while let Some(batch) = self.writing.join_next().await {
            let batch = batch?;
            self.running.metrics.apply_duration.observe(batch.took.as_secs_f64());
            for (group, result) in batch.groups.into_iter().zip(batch.results.unwrap_or_default()) {
                if let Ok(effect) = result {
                    self.settle_applied(&group, effect, &mut judgement);
                }
            }
        }
        Ok(judgement.settled)
    }

    /// Ends everything as [`Self::release`] does, but judges the batches that were being written: the program stops.
    pub async fn drain(&mut self) -> anyhow::Result<Judgement> {
        self.forget_queued();
        let mut judgement = Judgement::default();
        while let Some(batch) = self.writing.join_next().await {
            let judged = self.judge(batch?).await?;
            judgement.merge(judged);
        }
        self.forget_queued();
        Ok(judgement)
    }

    fn forget_queued(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.retries.clear_waiting();
        self.running.set_retrying(0);
    }

    /// Ends everything at once: the source lost its connection, and hands out again whatever is not settled. A batch whose write is cut
    /// off may have been stored or not; applying it again changes nothing.
    pub fn abandon(&mut self) {
        self.forget_queued();
        self.writing = JoinSet::new();
    }

    /// The source took back an event on purpose. Its next delivery is not counted as a crash of the projector.
    pub fn note_return(&mut self, sequence: u64) {
        self.retries.note_return(sequence);
    }

    /// Every event up to this sequence was acknowledged, perhaps by another process: their retry state is of no use.
    pub fn forget_up_to(&mut self, ack_floor: u64) {
        self.retries.forget_up_to(ack_floor);
    }

    /// The source is attached to another stream or consumer, in which the sequences are other events.
    pub fn forget_all(&mut self) {
        self.retries.forget_all();
    }
}
