//! Names that cross a process: streams, subjects, and which aggregate they speak of.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The stream of all events.
pub const EVENTS_STREAM: &str = "LISTINGS_EVENTS";
/// The stream of events that a projection could not apply.
pub const DLQ_STREAM: &str = "LISTINGS_DLQ";
/// The first tokens of every event's subject.
pub const EVENTS_PREFIX: &str = "listings.events";
/// The first tokens of every dead letter's subject.
pub const DLQ_PREFIX: &str = "listings.dlq";
/// The largest event, body and headers together, in bytes. A command that would make a larger one answers 413; the
/// broker's `max_payload` and the stream's `max_msg_size` leave room above it (PROTOCOL W5).
pub const EVENT_MAX: usize = 2_621_440;

/// What an event is about. The text is part of subjects, journal keys and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// A listing.
    Listing,
    /// The stock of one variant.
    Stock,
}

impl Aggregate {
    /// Every aggregate there is.
    pub const ALL: [Self; 2] = [Self::Listing, Self::Stock];

    /// The name in subjects, in the journal and in tokens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Stock => "stock",
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Aggregate {
    type Err = UnknownAggregate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| UnknownAggregate(text.to_owned()))
    }
}

/// Not the name of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no aggregate is called {0:?}")]
pub struct UnknownAggregate(String);

/// One aggregate. Stock and order book share the variant's id, so the id alone is never a key (PROTOCOL W3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey {
    /// Which kind.
    pub aggregate: Aggregate,
    /// Which one.
    pub id: Uuid,
}

impl AggregateKey {
    /// The key of a listing.
    #[must_use]
    pub fn listing(id: impl Into<Uuid>) -> Self {
        Self { aggregate: Aggregate::Listing, id: id.into() }
    }

    /// The key of a variant's stock.
    #[must_use]
    pub fn stock(id: impl Into<Uuid>) -> Self {
        Self { aggregate: Aggregate::Stock, id: id.into() }
    }

    /// Where all events of this aggregate go: one subject each, so that the last message per subject is its state.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{EVENTS_PREFIX}.{}.{}", self.aggregate, self.id)
    }

    /// Reads an event's subject; `None` for any other.
    #[must_use]
    pub fn from_subject(subject: &str) -> Option<Self> {
        let (aggregate, id) = subject.strip_prefix(EVENTS_PREFIX)?.strip_prefix('.')?.split_once('.')?;
        Some(Self { aggregate: aggregate.parse().ok()?, id: id.parse().ok()? })
    }
}

impl fmt::Display for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.aggregate, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_aggregate_and_reads_back() {
        let key = AggregateKey::stock(Uuid::from_u128(7));
        assert_eq!(key.subject(), "listings.events.stock.00000000-0000-0000-0000-000000000007");
        assert_eq!(AggregateKey::from_subject(&key.subject()), Some(key));
        for foreign in ["listings.events.stock", "listings.events.cat.7", "listings.eventsx.stock.7", "listings.events.stock.7"] {
            assert_eq!(AggregateKey::from_subject(foreign), None, "{foreign}");
        }
    }
}
