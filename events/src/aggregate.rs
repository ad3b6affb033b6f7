//! Aggregates: what events are about. Each kind is described once, in its own file, and listed in [`AGGREGATES`].

use std::{cmp, fmt, hash, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    Listing, Stock,
    subject::EVENTS_PREFIX,
    upcast::{Upcaster, major_version},
};

/// Every kind of aggregate. Code that must handle all of them iterates over this list or is generic over [`Aggregate`].
pub const AGGREGATES: [AggregateKind; 2] = [Listing::KIND, Stock::KIND];

/// The state of one kind of aggregate. The implementing type is the whole state that each event of the aggregate carries.
pub trait Aggregate: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Describes the kind.
    const KIND: AggregateKind;

    /// What can happen to the aggregate.
    type Change: Change;

    fn id(&self) -> Uuid;

    /// Counts every change of the aggregate from 1.
    fn version(&self) -> u64;
}

/// A change of an aggregate: the part of an event that says what happened.
pub trait Change: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The event's `ce-type`, for example `listing.created.v1`.
    fn event_type(&self) -> &'static str;
}

/// A kind of aggregate at run time, for code that handles aggregates of any kind. Two kinds are equal if their names are.
#[derive(Clone, Copy)]
pub struct AggregateKind(&'static Description);

/// The constant part of an [`AggregateKind`].
pub struct Description {
    /// The name in subjects, in the journal and in tokens.
    pub name: &'static str,
    /// The `ce-type` of each change in its current version.
    pub event_types: &'static [&'static str],
    /// Former event types and the function that rewrites each to its next version. Empty while every type is at its first.
    pub upcasters: &'static [(&'static str, Upcaster)],
}

impl AggregateKind {
    #[must_use]
    pub const fn new(description: &'static Description) -> Self {
        Self(description)
    }

    /// Finds a kind by its name; `None` for a kind that this program does not know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        AGGREGATES.into_iter().find(|kind| kind.name() == name)
    }

    /// The name in subjects, in the journal and in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    #[must_use]
    pub fn event_types(self) -> &'static [&'static str] {
        self.0.event_types
    }

    #[must_use]
    pub fn upcasters(self) -> &'static [(&'static str, Upcaster)] {
        self.0.upcasters
    }

    /// Whether an event type has a higher major version than this program can read. A type that this program has never heard of
    /// counts as readable up to the highest version of any type of its kind: a new type does not change the state's format.
    /// `None` if the text is not the type of an event of this kind.
    #[must_use]
    pub fn is_newer(self, event_type: &str) -> Option<bool> {
        let of_kind = |event_type: &str| event_type.strip_prefix(self.name()).is_some_and(|rest| rest.starts_with('.'));
        let (stem, version) = major_version(event_type).filter(|_| of_kind(event_type))?;
        let known = || self.0.event_types.iter().chain(self.0.upcasters.iter().map(|(name, _)| name));
        let highest = |of_stem: Option<&str>| {
            known()
                .filter_map(|known| major_version(known))
                .filter(|(stem, _)| of_stem.is_none_or(|wanted| wanted == *stem))
                .map(|(_, version)| version)
                .max()
        };
        Some(version > highest(Some(stem)).or_else(|| highest(None)).unwrap_or(1))
    }
}

impl PartialEq for AggregateKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for AggregateKind {}

impl PartialOrd for AggregateKind {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AggregateKind {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.name().cmp(other.name())
    }
}

impl hash::Hash for AggregateKind {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for AggregateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for AggregateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AggregateKind {
    type Err = UnknownAggregate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_name(text).ok_or_else(|| UnknownAggregate(text.to_owned()))
    }
}

impl Serialize for AggregateKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for AggregateKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not the name of a kind of aggregate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no aggregate is called {0:?}")]
pub struct UnknownAggregate(String);

/// Names one aggregate. Stock and order book share the variant's id, so the id alone is never a key (PROTOCOL W3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey {
    pub kind: AggregateKind,
    pub id: Uuid,
}

impl AggregateKey {
    /// The key of the aggregate of kind `A` with this id.
    #[must_use]
    pub fn of<A: Aggregate>(id: impl Into<Uuid>) -> Self {
        Self { kind: A::KIND, id: id.into() }
    }

    /// The subject of all events of this aggregate. One subject per aggregate, so that the last message per subject is its state.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{EVENTS_PREFIX}.{}.{}", self.kind, self.id)
    }

    /// Reads an event's subject; `None` for any other subject, and for a kind of aggregate that this program does not know.
    #[must_use]
    pub fn from_subject(subject: &str) -> Option<Self> {
        let (kind, id) = subject.strip_prefix(EVENTS_PREFIX)?.strip_prefix('.')?.split_once('.')?;
        Some(Self { kind: AggregateKind::from_name(kind)?, id: id.parse().ok()? })
    }
}

impl fmt::Display for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
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

    #[test]
    fn each_kind_has_a_name_of_its_own_and_owns_its_event_types() {
        for (at, kind) in AGGREGATES.iter().enumerate() {
            assert!(AGGREGATES[..at].iter().all(|other| other != kind), "{kind}");
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{kind}");
            for event_type in kind.event_types() {
                assert_eq!(kind.is_newer(event_type), Some(false), "{event_type}");
            }
        }
    }

    #[test]
    fn a_higher_major_version_is_newer_and_an_unknown_name_is_not() {
        const CATS: AggregateKind = AggregateKind::new(&Description {
            name: "cat",
            event_types: &["cat.named.v3", "cat.fed.v1"],
            upcasters: &[("cat.named.v1", |body| body), ("cat.named.v2", |body| body)],
        });
        for (event_type, newer) in [
            ("cat.named.v1", Some(false)),
            ("cat.named.v3", Some(false)),
            ("cat.named.v4", Some(true)),
            ("cat.fed.v2", Some(true)),
            ("cat.petted.v1", Some(false)),
            ("cat.petted.v3", Some(false)),
            ("cat.petted.v4", Some(true)),
            ("cat.fed", None),
            ("cat.fed.vx", None),
            ("cats.fed.v1", None),
            ("dog.fed.v1", None),
            ("", None),
        ] {
            assert_eq!(CATS.is_newer(event_type), newer, "{event_type}");
        }
    }
}
