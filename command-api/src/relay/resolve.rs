//! What to do about one event, given the last message of its subject: a rule without I/O.
//!
//! A version number never proves that an event is stored. Only the id of the stored event does, which must be the id that the
//! journal has for that version (PROTOCOL R2–R4).

use uuid::Uuid;

use super::event::StoredEvent;

/// The last message of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastMessage {
    None,
    /// A message with an event id and a version. The journal says whether they belong together.
    Event(StoredEvent),
    /// A message without a readable version or id, so no relay wrote it.
    Foreign {
        sequence: u64,
    },
}

impl LastMessage {
    pub fn event(self) -> Option<StoredEvent> {
        match self {
            Self::Event(event) => Some(event),
            Self::None | Self::Foreign { .. } => None,
        }
    }
}

/// How an event gets into the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveStep {
    /// Publish it with this expected last sequence of its subject.
    Publish { expected: u64 },
    /// Publish the versions after this one from the journal, with this expected sequence; then read the subject again.
    FillGap { after: u64, expected: u64 },
    /// The stream holds this event, or a later one of the same history.
    AlreadyStored(StoredEvent),
    /// Stream and journal hold different histories of this aggregate. Publish nothing and delete nothing.
    Diverged(Divergence),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    #[error("the stream holds version {version}, which the journal lacks: the database was restored to an earlier point")]
    JournalLacks { version: u64 },
    #[error(
        "version {version} is event {stream} in the stream and event {journal} in the journal: the database was restored to an earlier \
         point"
    )]
    OtherEvent { version: u64, stream: Uuid, journal: Uuid },
}

/// Decides about version `version` of an aggregate. `journal` is the journal's event of the version that the last message has.
pub fn next_step(version: u64, last: LastMessage, journal: Option<Uuid>) -> ResolveStep {
    match last {
        LastMessage::None if version == 1 => ResolveStep::Publish { expected: 0 },
        LastMessage::None => ResolveStep::FillGap { after: 0, expected: 0 },
        // It is no version of this aggregate. If the event is stored below it, a second copy is harmless: versions decide.
        LastMessage::Foreign { sequence } => ResolveStep::Publish { expected: sequence },
        LastMessage::Event(last) => match divergence(&last, journal) {
            Some(divergence) => ResolveStep::Diverged(divergence),
            None if last.version >= version => ResolveStep::AlreadyStored(last),
            None if last.version + 1 == version => ResolveStep::Publish { expected: last.sequence },
            None => ResolveStep::FillGap { after: last.version, expected: last.sequence },
        },
    }
}

/// Returns how an event in the stream differs from the journal's event of that version.
pub fn divergence(stored: &StoredEvent, journal: Option<Uuid>) -> Option<Divergence> {
    let StoredEvent { version, event_id: stream, .. } = *stored;
    match journal {
        None => Some(Divergence::JournalLacks { version }),
        Some(journal) if journal != stream => Some(Divergence::OtherEvent { version, stream, journal }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn stored(version: u64) -> LastMessage {
        LastMessage::Event(StoredEvent { sequence: 70, version, event_id: OURS })
    }

    #[test]
    fn every_answer_has_one_next_step() {
        let there = |version| ResolveStep::AlreadyStored(StoredEvent { sequence: 70, version, event_id: OURS });
        for (held, last, journal, expected) in [
            // An empty subject.
            (1, LastMessage::None, None, ResolveStep::Publish { expected: 0 }),
            (3, LastMessage::None, None, ResolveStep::FillGap { after: 0, expected: 0 }),
            // The version before ours, ours, a later one, a gap.
            (3, stored(2), Some(OURS), ResolveStep::Publish { expected: 70 }),
            (3, stored(3), Some(OURS), there(3)),
            (3, stored(9), Some(OURS), there(9)),
            (3, stored(1), Some(OURS), ResolveStep::FillGap { after: 1, expected: 70 }),
            // Another history, however its numbers lie to ours.
            (
                3,
                stored(2),
                Some(OTHER),
                ResolveStep::Diverged(Divergence::OtherEvent { version: 2, stream: OURS, journal: OTHER }),
            ),
            (
                3,
                stored(3),
                Some(OTHER),
                ResolveStep::Diverged(Divergence::OtherEvent { version: 3, stream: OURS, journal: OTHER }),
            ),
            (3, stored(9), None, ResolveStep::Diverged(Divergence::JournalLacks { version: 9 })),
            (1, stored(1), None, ResolveStep::Diverged(Divergence::JournalLacks { version: 1 })),
            // Somebody else's message.
            (1, LastMessage::Foreign { sequence: 5 }, None, ResolveStep::Publish { expected: 5 }),
            (7, LastMessage::Foreign { sequence: 5 }, None, ResolveStep::Publish { expected: 5 }),
        ] {
            assert_eq!(next_step(held, last, journal), expected, "held {held}, last {last:?}, journal {journal:?}");
        }
    }
}
