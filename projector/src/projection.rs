//! What a read model has to be able to do to be fed.

use std::fmt;
use std::time::Duration;

use events::{AggregateKind, Event};

/// A read model that is kept from events.
///
/// It writes one store only (PROTOCOL P3), assigns whole states, and writes one only if it is newer than what it holds.
pub trait Projection: Send + Sync + 'static {
    /// Metric label, log field and key in `projection.generations`.
    const NAME: &'static str;

    /// What it is made from.
    const AGGREGATES: &'static [AggregateKind];

    /// How much is written at once.
    const LIMITS: Limits;

    /// What one event comes to.
    type Write: Send + Sync;

    /// Turns an event into what is written. Pure; what it refuses, and what makes it panic, is poison.
    fn render(&self, event: &Event) -> anyhow::Result<Self::Write>;

    /// Writes a batch, at most one event per aggregate, and answers with one outcome for each, in the same order. Events may
    /// come twice, and late: writing one again must change nothing.
    fn store(&self, writes: Vec<Self::Write>) -> impl Future<Output = Result<Vec<Outcome>, Systemic>> + Send;
}

/// How much of a projection is written at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In one request.
    pub events: usize,
    /// In one request, as the events' bodies count.
    pub bytes: usize,
    /// Requests at the same time.
    pub in_flight: usize,
    /// What one request may take, before the store counts as away.
    pub within: Duration,
}

/// What came of one event.
pub type Outcome = Result<Stored, Failure>;

/// The store has this state of the aggregate, or a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was written.
    Applied,
    /// A newer one, or this one, was there already.
    Superseded,
}

/// One event could not be written, though its store is there.
#[derive(Debug)]
pub enum Failure {
    /// It may work later.
    Transient(anyhow::Error),
    /// It never will.
    Poison(anyhow::Error),
}

impl Failure {
    pub fn error(&self) -> &anyhow::Error {
        match self {
            Self::Transient(error) | Self::Poison(error) => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error())
    }
}

/// The store is away, or refuses everything: no event is to blame.
#[derive(Debug)]
pub struct Systemic(pub anyhow::Error);

impl fmt::Display for Systemic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}
