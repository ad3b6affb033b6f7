//! What a generation that this process feeds shows of itself to readiness, status and metrics.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    generations::{Generation, GenerationState},
    metrics::{GenerationLag, GenerationMetrics},
};

/// What the live source of a generation is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FeedState {
    /// It is not attached to its durable consumer: the program just started, the consumer is missing, or the broker does not answer.
    Waiting {
        why: String,
    },
    Consuming,
    /// It writes nothing, or not everything, until the reason is gone. That is no failure of the process.
    Holding {
        why: String,
        since: DateTime<Utc>,
    },
    /// An operator paused the durable consumer.
    Paused,
}

/// One generation of one projection, while this process feeds it.
#[derive(Debug)]
pub struct RunningGeneration {
    generation: Generation,
    pub metrics: GenerationMetrics,
    shown: Mutex<ShownState>,
    /// Events that were applied or found superseded since the process started.
    applied: AtomicU64,
    /// Events that wait for another try.
    retrying: AtomicUsize,
    /// Every event up to this stream sequence was acknowledged, by whichever process.
    ack_floor: AtomicU64,
    stalled: AtomicBool,
    paused: AtomicBool,
}

#[derive(Debug)]
struct ShownState {
    generation_state: GenerationState,
    state: FeedState,
    /// Why events of a newer program keep the generation from being complete, as long as there are any.
    newer: Option<(String, DateTime<Utc>)>,
    lag: Option<GenerationLag>,
}

/// A generation as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GenerationReport {
    pub projection: String,
    pub generation: i32,
    pub serving: bool,
    pub role: String,
    pub durable: String,
    #[serde(flatten)]
    pub state: FeedState,
    pub lag: Option<GenerationLag>,
    pub retrying: usize,
    pub applied: u64,
}

impl RunningGeneration {
    pub fn new(generation: Generation, metrics: GenerationMetrics) -> Self {
        let state = FeedState::Waiting { why: "starting".to_owned() };
        Self {
            shown: Mutex::new(ShownState { generation_state: generation.state, state, newer: None, lag: None }),
            generation,
            metrics,
            applied: AtomicU64::new(0),
            retrying: AtomicUsize::new(0),
            ack_floor: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        }
    }

    fn shown(&self) -> MutexGuard<'_, ShownState> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation as it was when its feed began; only [`Self::generation_state`] changes later.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    pub fn name(&self) -> &str {
        self.generation.name()
    }

    pub fn generation_state(&self) -> GenerationState {
        self.shown().generation_state
    }

    pub fn set_generation_state(&self, state: GenerationState) {
        self.shown().generation_state = state;
    }

    pub fn is_serving(&self) -> bool {
        self.generation_state() == GenerationState::Serving
    }

    /// What is shown. A generation that waits for a newer program holds, although it applies other events meanwhile.
    pub fn state(&self) -> FeedState {
        self.shown().state()
    }

    /// Returns whether the state changed.
    pub fn set_state(&self, state: FeedState) -> bool {
        let mut shown = self.shown();
        let changed = shown.state != state;
        shown.state = state;
        self.show_held(&shown);
        changed
    }

    /// Shows, or with `None` no longer shows, that events of a newer program wait.
    pub fn set_newer(&self, why: Option<String>, now: DateTime<Utc>) {
        let mut shown = self.shown();
        shown.newer = why.map(|why| (why, shown.newer.as_ref().map_or(now, |(_, since)| *since)));
        self.show_held(&shown);
    }

    fn show_held(&self, shown: &ShownState) {
        self.metrics.set_held(matches!(shown.state(), FeedState::Holding { .. }));
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    pub fn add_applied(&self, events: u64) {
        self.applied.fetch_add(events, Relaxed);
    }

    pub fn set_retrying(&self, events: usize) {
        self.retrying.store(events, Relaxed);
    }

    pub fn ack_floor(&self) -> u64 {
        self.ack_floor.load(Relaxed)
    }

    pub fn set_ack_floor(&self, sequence: u64) {
        self.ack_floor.store(sequence, Relaxed);
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    pub fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Whether an operator paused the durable consumer, as last seen.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    /// `None` while the lag is unknown: the last value would say that all is well.
    pub fn set_lag(&self, lag: Option<GenerationLag>) {
        self.shown().lag = lag;
        self.metrics.set_lag(lag);
    }

    pub fn report(&self) -> GenerationReport {
        let shown = self.shown();
        GenerationReport {
            projection: self.generation.projection.clone(),
            generation: self.generation.number,
            serving: shown.generation_state == GenerationState::Serving,
            role: shown.generation_state.as_str().to_owned(),
            durable: self.name().to_owned(),
            state: shown.state(),
            lag: shown.lag,
            retrying: self.retrying.load(Relaxed),
            applied: self.applied(),
        }
    }
}

impl ShownState {
    fn state(&self) -> FeedState {
        match (&self.state, &self.newer) {
            (FeedState::Consuming, Some((why, since))) => FeedState::Holding { why: why.clone(), since: *since },
            (state, _) => state.clone(),
        }
    }
}

/// All generations that this process feeds.
#[derive(Debug, Clone, Default)]
pub struct RunningGenerations(Arc<Mutex<Vec<Arc<RunningGeneration>>>>);

impl RunningGenerations {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<RunningGeneration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, running: Arc<RunningGeneration>) {
        self.list().push(running);
    }

    pub fn remove(&self, ended: &Arc<RunningGeneration>) {
        self.list().retain(|running| !Arc::ptr_eq(running, ended));
    }

    pub fn all(&self) -> Vec<Arc<RunningGeneration>> {
        self.list().clone()
    }

    pub fn to_json(&self) -> Value {
        json!({ "projections": self.all().iter().map(|running| running.report()).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_generation_that_waits_for_a_newer_program_holds_until_no_such_event_is_left() {
        let generation = Generation::new("listing_page", 2, GenerationState::Fed);
        let metrics = Metrics::register(&mut Registry::default(), []).of(&generation);
        let running = RunningGeneration::new(generation, metrics);
        let (first, later) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(9));
        running.set_state(FeedState::Consuming);
        running.set_newer(Some("one".to_owned()), first);
        running.set_newer(Some("another".to_owned()), later);
        assert_eq!(running.state(), FeedState::Holding { why: "another".to_owned(), since: first });
        assert!(!running.set_state(FeedState::Consuming), "it consumes the others all the time");

        // A reason of the feed itself comes first.
        let waiting = FeedState::Waiting { why: "the broker does not answer".to_owned() };
        running.set_state(waiting.clone());
        assert_eq!(running.state(), waiting);
        running.set_state(FeedState::Consuming);
        running.set_newer(None, later);
        assert_eq!(running.state(), FeedState::Consuming);
    }
}
