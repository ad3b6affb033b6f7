//! What a running feed shows of itself to those who ask: readiness, status, metrics.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::generations::Generation;

/// What a feed is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Phase {
    /// It has no consumer yet, or not any more.
    Waiting {
        why: String,
    },
    Consuming,
    /// It has stopped on purpose, until a probe succeeds.
    Holding {
        why: String,
        since: DateTime<Utc>,
    },
}

/// How far a feed is, as the broker tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    pub events: u64,
    pub seconds: f64,
}

/// One projection's generation, as it is fed by this process.
#[derive(Debug)]
pub struct Feed {
    pub projection: &'static str,
    pub generation: i32,
    pub durable: String,
    serving: AtomicBool,
    phase: Mutex<Phase>,
    lag: Mutex<Option<Lag>>,
    applied: AtomicU64,
    waiting: AtomicUsize,
    /// Everything up to this sequence of the stream was answered, by whichever process.
    floor: AtomicU64,
    stalled: AtomicBool,
}

/// A feed as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeedStatus {
    pub projection: String,
    pub generation: i32,
    pub serving: bool,
    pub durable: String,
    #[serde(flatten)]
    pub phase: Phase,
    pub lag: Option<Lag>,
    /// Events that wait for another try.
    pub retrying: usize,
    /// Events that were written since the process started.
    pub applied: u64,
}

impl Feed {
    pub fn new(projection: &'static str, generation: &Generation) -> Self {
        Self {
            projection,
            generation: generation.number,
            durable: generation.durable.clone(),
            serving: AtomicBool::new(generation.serving),
            phase: Mutex::new(Phase::Waiting { why: "starting".to_owned() }),
            lag: Mutex::new(None),
            applied: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        }
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Relaxed)
    }

    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers whether that is a change.
    pub fn set_phase(&self, phase: Phase) -> bool {
        let mut held = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *held != phase;
        *held = phase;
        changed
    }

    pub fn is_holding(&self) -> bool {
        matches!(self.phase(), Phase::Holding { .. })
    }

    /// How many events were written or found written since the process started.
    pub fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    pub fn add_applied(&self, events: u64) {
        self.applied.fetch_add(events, Relaxed);
    }

    pub fn set_waiting(&self, events: usize) {
        self.waiting.store(events, Relaxed);
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Relaxed)
    }

    pub fn set_floor(&self, sequence: u64) {
        self.floor.store(sequence, Relaxed);
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    pub fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// `None` while it is not known.
    pub fn set_lag(&self, lag: Option<Lag>) {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = lag;
    }

    pub fn status(&self) -> FeedStatus {
        FeedStatus {
            projection: self.projection.to_owned(),
            generation: self.generation,
            serving: self.is_serving(),
            durable: self.durable.clone(),
            phase: self.phase(),
            lag: *self.lag.lock().unwrap_or_else(PoisonError::into_inner),
            retrying: self.waiting.load(Relaxed),
            applied: self.applied(),
        }
    }
}
