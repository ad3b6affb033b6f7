//! What to do about one event, given what its subject last holds.
//!
//! A rule without I/O. It never concludes from a number that an event is stored: only from the id of the stored event, which
//! must be the journal's for that version (PROTOCOL R2–R4).

use uuid::Uuid;

/// An event in the stream, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub version: u64,
    pub event_id: Uuid,
    pub sequence: u64,
}

/// The last message of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Nothing,
    /// It says which event it is, and which version; whether that is true, the journal knows.
    Event(Stored),
    /// Without a version or an id that can be read: no relay wrote it.
    Foreign {
        sequence: u64,
    },
}

impl Last {
    pub fn event(self) -> Option<Stored> {
        match self {
            Self::Event(stored) => Some(stored),
            Self::Nothing | Self::Foreign { .. } => None,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Publish it, expecting this sequence to be the subject's last.
    Publish { expected: u64 },
    /// Publish the versions after this one from the journal, expecting this sequence, then look again.
    FillGap { after: u64, expected: u64 },
    /// The stream holds it, or a later event of the same history.
    AlreadyThere(Stored),
    /// Stream and journal tell different histories of this aggregate: stop, delete nothing.
    Diverged(Divergence),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    #[error("the stream holds version {version}, which the journal lacks: the database went back")]
    JournalLacks { version: u64 },
    #[error("version {version} is event {stream} in the stream and event {journal} in the journal: the database went back")]
    OtherEvent { version: u64, stream: Uuid, journal: Uuid },
}

/// `version` is what we hold; `journal` is the journal's event of the version that the stream's last message has.
pub fn next_step(version: u64, last: Last, journal: Option<Uuid>) -> Step {
    match last {
        Last::Nothing if version == 1 => Step::Publish { expected: 0 },
        Last::Nothing => Step::FillGap { after: 0, expected: 0 },
        // Whatever it is, it is not a version of this aggregate; a second copy is harmless by version.
        Last::Foreign { sequence } => Step::Publish { expected: sequence },
        Last::Event(last) => match divergence(&last, journal) {
            Some(divergence) => Step::Diverged(divergence),
            None if last.version >= version => Step::AlreadyThere(last),
            None if last.version + 1 == version => Step::Publish { expected: last.sequence },
            None => Step::FillGap { after: last.version, expected: last.sequence },
        },
    }
}

/// Whether an event of the stream is not the journal's of that version.
pub fn divergence(stored: &Stored, journal: Option<Uuid>) -> Option<Divergence> {
    let Stored { version, event_id: stream, .. } = *stored;
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

    fn stored(version: u64) -> Last {
        Last::Event(Stored { sequence: 70, version, event_id: OURS })
    }

    #[test]
    fn every_answer_has_one_next_step() {
        let there = |version| Step::AlreadyThere(Stored { sequence: 70, version, event_id: OURS });
        for (held, last, journal, expected) in [
            // An empty subject.
            (1, Last::Nothing, None, Step::Publish { expected: 0 }),
            (3, Last::Nothing, None, Step::FillGap { after: 0, expected: 0 }),
            // The version before ours, ours, a later one, a gap.
            (3, stored(2), Some(OURS), Step::Publish { expected: 70 }),
            (3, stored(3), Some(OURS), there(3)),
            (3, stored(9), Some(OURS), there(9)),
            (3, stored(1), Some(OURS), Step::FillGap { after: 1, expected: 70 }),
            // Another history, however its numbers lie to ours.
            (3, stored(2), Some(OTHER), Step::Diverged(Divergence::OtherEvent { version: 2, stream: OURS, journal: OTHER })),
            (3, stored(3), Some(OTHER), Step::Diverged(Divergence::OtherEvent { version: 3, stream: OURS, journal: OTHER })),
            (3, stored(9), None, Step::Diverged(Divergence::JournalLacks { version: 9 })),
            (1, stored(1), None, Step::Diverged(Divergence::JournalLacks { version: 1 })),
            // Somebody else's message.
            (1, Last::Foreign { sequence: 5 }, None, Step::Publish { expected: 5 }),
            (7, Last::Foreign { sequence: 5 }, None, Step::Publish { expected: 5 }),
        ] {
            assert_eq!(next_step(held, last, journal), expected, "held {held}, last {last:?}, journal {journal:?}");
        }
    }
}
