//! Notices when aggregates suddenly turn to poison by the dozen: then the projector or the mapping is wrong, not the events, and
//! putting them all aside would empty a read model (PROTOCOL P5). One aggregate counts once, however often it is edited.

use std::collections::{HashSet, VecDeque};

/// As many of the latest outcomes are looked at.
const WINDOW: usize = 1000;
/// Fewer are put aside one by one.
const SUSPICIOUS: usize = 20;
/// In hundredths of the window's outcomes.
const SUSPICIOUS_PERCENT: usize = 1;

/// The latest outcomes: of an event that was poison, its subject.
#[derive(Debug, Default)]
pub struct MassPoison {
    latest: VecDeque<Option<String>>,
}

impl MassPoison {
    pub fn note_stored(&mut self) {
        self.note(None);
    }

    /// Also one that is met again and again, while everything is held, keeps the others that are remembered.
    pub fn note_poison(&mut self, subject: &str) {
        self.forget(subject);
        self.note(Some(subject.to_owned()));
    }

    fn note(&mut self, poison: Option<String>) {
        if self.latest.len() == WINDOW {
            self.latest.pop_front();
        }
        self.latest.push_back(poison);
    }

    /// The distinct subjects, if there are suspiciously many.
    pub fn suspicious(&self) -> Option<HashSet<&str>> {
        let poison: HashSet<&str> = self.latest.iter().flatten().map(String::as_str).collect();
        (poison.len() >= SUSPICIOUS && poison.len() * 100 > self.latest.len() * SUSPICIOUS_PERCENT).then_some(poison)
    }

    /// An aggregate of which events were put aside before tells nothing new.
    pub fn forget(&mut self, subject: &str) {
        self.latest.retain(|poison| poison.as_deref() != Some(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_distinct_aggregates_are_too_many() {
        let mut guard = MassPoison::default();
        for aggregate in 0..19 {
            guard.note_poison(&aggregate.to_string());
            guard.note_poison("the same again");
        }
        // The nineteen and the one.
        assert!(guard.suspicious().is_some());
        guard.forget("the same again");
        assert_eq!(guard.suspicious(), None);
    }

    #[test]
    fn one_that_is_met_again_and_again_does_not_push_out_the_others() {
        let mut guard = MassPoison::default();
        for aggregate in 0..SUSPICIOUS {
            guard.note_poison(&aggregate.to_string());
        }
        for _ in 0..2 * WINDOW {
            guard.note_poison("0");
        }
        assert_eq!(guard.suspicious().map(|subjects| subjects.len()), Some(SUSPICIOUS));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut guard = MassPoison::default();
        for aggregate in 0..30 {
            guard.note_poison(&aggregate.to_string());
        }
        for _ in 0..WINDOW {
            guard.note_stored();
        }
        assert_eq!(guard.suspicious(), None);
    }
}
