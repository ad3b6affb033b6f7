//! An event as the relay sees it: the subject it belongs to, its version, its id, and bytes that the relay never decodes.
//!
//! The relay knows no kind of aggregate. A journal row written by a newer program, with a kind that this program does not know,
//! is published like any other.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use events::AggregateKind;
use events::subject::EVENTS_PREFIX;
use uuid::Uuid;

/// The aggregate that a subject belongs to: its kind as text, and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey {
    /// Borrowed for the kinds that this program knows, so that a clone does not allocate.
    kind: Cow<'static, str>,
    id: Uuid,
}

impl SubjectKey {
    /// Returns `None` if `kind` cannot be one token of a subject: it is empty, or holds a separator, a wildcard or a space.
    pub fn new(kind: &str, id: Uuid) -> Option<Self> {
        if let Some(known) = AggregateKind::from_name(kind) {
            return Some(Self { kind: Cow::Borrowed(known.name()), id });
        }
        let is_token = !kind.is_empty() && kind.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>'));
        is_token.then(|| Self { kind: Cow::Owned(kind.to_owned()), id })
    }

    /// Reads the subject of an event; `None` for any other subject.
    pub fn from_subject(subject: &str) -> Option<Self> {
        let (kind, id) = subject.strip_prefix(EVENTS_PREFIX)?.strip_prefix('.')?.split_once('.')?;
        Self::new(kind, id.parse().ok()?)
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn subject(&self) -> String {
        format!("{EVENTS_PREFIX}.{}.{}", self.kind, self.id)
    }

    pub fn shard(&self) -> i16 {
        shard_of(self.id)
    }
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Returns the shard of an aggregate's events: the last byte of its id, because the first bytes of a UUIDv7 are time
/// (PROTOCOL W4).
pub fn shard_of(id: Uuid) -> i16 {
    i16::from(id.as_bytes()[15]) % super::SHARDS
}

/// An event read from the journal.
#[derive(Debug)]
pub struct JournalEvent {
    /// Its row in the journal, and in the outbox until it is deleted there.
    pub seq: i64,
    pub key: SubjectKey,
    pub version: u64,
    pub id: Uuid,
    /// A JSON object of strings.
    pub headers: String,
    pub body: Bytes,
}

impl JournalEvent {
    pub fn shard(&self) -> i16 {
        self.key.shard()
    }
}

/// An event that the stream holds, and its stream sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEvent {
    pub version: u64,
    pub event_id: Uuid,
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_this_program_does_not_know_has_a_subject_too() {
        let id = Uuid::from_u128(7);
        for kind in ["listing", "stock", "book_of_a_newer_program"] {
            let key = SubjectKey::new(kind, id).unwrap();
            assert_eq!((key.kind(), key.id(), key.shard()), (kind, id, 7));
            assert_eq!(key.subject(), format!("listings.events.{kind}.{id}"));
            assert_eq!(SubjectKey::from_subject(&key.subject()), Some(key));
        }
    }

    #[test]
    fn a_kind_that_is_no_token_of_a_subject_has_none() {
        for kind in ["", "a book", "a.book", "*", ">", "book\r\n", "књига"] {
            assert_eq!(SubjectKey::new(kind, Uuid::nil()), None, "{kind:?}");
        }
        for subject in ["listings.events.stock", "listings.eventsx.stock.7", "listings.events.stock.7", "listings.events.a.b.c"] {
            assert_eq!(SubjectKey::from_subject(subject), None, "{subject}");
        }
    }
}
