//! What a read model must be able to do so that an applier can keep it up to date.

use std::{fmt, future::ready, time::Duration};

use events::{AggregateKind, Event};

use crate::{connections::StoreClients, generations::Generation};

/// A read model that is kept from events.
///
/// It writes one store only (PROTOCOL P3). A state projection assigns the whole state of an aggregate, and only if it is newer than
/// the one that is stored; a ledger inserts one entry per event, with the event id as its key.
pub trait Projection: Sized + Send + Sync + 'static {
    /// Metric label, log field, durable consumer of generation 1, and key in `projection.generations`.
    const NAME: &'static str;

    const KIND: ProjectionKind = ProjectionKind::State;

    /// The aggregates whose events it is made from.
    const AGGREGATES: &'static [AggregateKind];

    const LIMITS: WriteLimits;

    /// What is written for one event.
    type Write: Send + Sync;

    /// Opens one generation. Connects to nothing. If the store is down, the first write fails.
    fn open(stores: &StoreClients, generation: &Generation) -> Self;

    /// Makes what its store must have before the first event of these generations: an index, a partition. Returns one line for
    /// the operator per thing that it looked at. Can be run again at any time.
    fn provision(
        _stores: &StoreClients,
        _generations: &[Generation],
    ) -> impl Future<Output = anyhow::Result<Vec<String>>> + Send {
        ready(Ok(Vec::new()))
    }

    /// Turns an event into what is written. Pure. An error or a panic makes the event poison.
    fn render(&self, event: &Event) -> anyhow::Result<Self::Write>;

    /// Writes a batch and returns one result for each write, in the same order. A batch of a state projection has at most one
    /// event per aggregate; that of a ledger has the events of an aggregate in the order of their versions. Events may come twice,
    /// and late: writing one again must change nothing.
    fn store(&self, writes: Vec<Self::Write>) -> impl Future<Output = Result<Vec<EventResult>, SystemicFailure>> + Send;
}

/// Which events of an aggregate a projection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectionKind {
    /// The newest one only: of several in a batch the others are superseded (PROTOCOL P1).
    State,
    /// Each one, once (PROTOCOL P2).
    Ledger,
}

/// How much of a projection is written at once.
#[derive(Debug, Clone, Copy)]
pub struct WriteLimits {
    /// Events per request.
    pub events: usize,
    /// Bytes per request, counted in the events' bodies.
    pub bytes: usize,
    /// Requests at the same time.
    pub in_flight: usize,
    /// Timeout of one request, after which its store counts as unavailable.
    pub timeout: Duration,
}

/// The result of writing one event.
pub type EventResult = Result<WriteEffect, EventFailure>;

/// What a successful write changed. Either way the store has this state of the aggregate, or a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteEffect {
    Applied,
    /// A newer state, or this one, was stored already.
    Superseded,
}

/// Why one event was not written, although its store answers.
#[derive(Debug)]
pub enum EventFailure {
    /// Another try may succeed.
    Transient(anyhow::Error),
    /// No try will succeed.
    Poison(anyhow::Error),
    /// A newer program wrote the event, and only a newer projector can read it.
    Newer { event_type: String },
}

impl fmt::Display for EventFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(error) | Self::Poison(error) => write!(f, "{error:#}"),
            Self::Newer { event_type } => {
                write!(f, "it has type {event_type}, which a newer program wrote; upgrade this projector")
            }
        }
    }
}

/// A request failed as a whole: the store does not answer or refuses everything, and no event is at fault.
#[derive(Debug)]
pub struct SystemicFailure(pub anyhow::Error);

impl fmt::Display for SystemicFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}
