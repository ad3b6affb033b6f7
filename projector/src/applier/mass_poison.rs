//! Recognises that many aggregates suddenly turn to poison. Then the projector or the mapping is wrong, not the events, and a dead
//! letter for each would empty a read model (PROTOCOL P5, decision 0301). One aggregate counts once, however often it is edited.

use std::collections::{HashSet, VecDeque};

/// How many of the latest results are looked at.
const WINDOW: usize = 1000;
/// Fewer aggregates than this become dead letters one by one.
const SUSPICIOUS_AGGREGATES: usize = 20;
/// In percent of the results in the window.
const SUSPICIOUS_PERCENT: usize = 1;

/// The latest results: for poison, the subject of the event.
#[derive(Debug, Default)]
pub struct MassPoison {
    latest: VecDeque<Option<String>>,
}

impl MassPoison {
    pub fn note_applied(&mut self) {
        self.push(None);
    }

    /// Notes a poison event. A subject that is met again replaces its earlier entry, so that it does not push out the others.
    pub fn note_poison(&mut self, subject: &str) {
        self.forget(subject);
        self.push(Some(subject.to_owned()));
    }

    fn push(&mut self, poison: Option<String>) {
        if self.latest.len() == WINDOW {
            self.latest.pop_front();
        }
        self.latest.push_back(poison);
    }

    /// The distinct subjects, if there are suspiciously many.
    pub fn suspicious(&self) -> Option<HashSet<&str>> {
        let poison: HashSet<&str> = self.latest.iter().flatten().map(String::as_str).collect();
        (poison.len() >= SUSPICIOUS_AGGREGATES && poison.len() * 100 > self.latest.len() * SUSPICIOUS_PERCENT).then_some(poison)
    }

    /// Does not count an aggregate towards mass poison, because its dead letters are known.
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
        for aggregate in 0..SUSPICIOUS_AGGREGATES {
            guard.note_poison(&aggregate.to_string());
        }
        for _ in 0..2 * WINDOW {
            guard.note_poison("0");
        }
        assert_eq!(guard.suspicious().map(|subjects| subjects.len()), Some(SUSPICIOUS_AGGREGATES));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut guard = MassPoison::default();
        for aggregate in 0..30 {
            guard.note_poison(&aggregate.to_string());
        }
        for _ in 0..WINDOW {
            guard.note_applied();
        }
        assert_eq!(guard.suspicious(), None);
    }
}
