//! The retry state of events, by their stream sequence (PROTOCOL P4), and those that wait for their next try.
//!
//! The state of an event outlives a hold, so that its tries are counted on; it ends when the event is settled.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::source_event::{EventGroup, SourceEvent};

/// An event that was delivered this often without a result may be what kills its projector: it is applied alone.
const SUSPECT_AFTER: u64 = 5;

/// The failures of one event so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventTries {
    pub failed: u32,
    pub first_failed_at: Option<DateTime<Utc>>,
    /// How many events had been applied when it failed first.
    pub applied_before: Option<u64>,
    /// How often it went back to its source on purpose: such a delivery is no sign of a crash.
    returned: u64,
}

#[derive(Debug, Default)]
pub struct Retries {
    tries: HashMap<u64, EventTries>,
    waiting: BTreeMap<(Instant, u64), EventGroup>,
}

impl Retries {
    /// Counts a failed try of the event at this sequence.
    pub fn count_failure(&mut self, sequence: u64, now: DateTime<Utc>, applied: u64) -> EventTries {
        self.note_refusal(sequence, now, applied);
        let tries = self.tries.entry(sequence).or_default();
        tries.failed += 1;
        *tries
    }

    /// Notes that an event was not taken while it is unknown whether the store or the event is at fault: no try is counted.
    pub fn note_refusal(&mut self, sequence: u64, now: DateTime<Utc>, applied: u64) {
        let tries = self.tries.entry(sequence).or_default();
        tries.applied_before.get_or_insert(applied);
        tries.first_failed_at.get_or_insert(now);
    }

    /// Lets a group wait for its next try.
    pub fn wait(&mut self, until: Instant, group: EventGroup) {
        self.waiting.insert((until, group.head().sequence), group);
    }

    /// When the next try is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the group that has been due for longest, if there is one and it fits.
    pub fn take_due(&mut self, now: Instant, fits: impl FnOnce(&EventGroup) -> bool) -> Option<EventGroup> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now && fits(entry.get())).then(|| entry.remove())
    }

    /// How many events wait, the superseded ones included: each takes a place of `max_ack_pending`.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(EventGroup::len).sum()
    }

    pub fn clear_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The event went back to its source on purpose.
    pub fn note_return(&mut self, sequence: u64) {
        self.tries.entry(sequence).or_default().returned += 1;
    }

    /// The event is settled.
    pub fn forget(&mut self, sequence: u64) {
        self.tries.remove(&sequence);
    }

    /// Whether the event was delivered too often without any result.
    pub fn is_suspect(&self, event: &SourceEvent) -> bool {
        let tries = self.tries.get(&event.sequence).copied().unwrap_or_default();
        tries.failed == 0 && event.deliveries.saturating_sub(tries.returned) >= SUSPECT_AFTER
    }

    /// Every event up to this sequence was acknowledged, perhaps by another process.
    pub fn forget_up_to(&mut self, ack_floor: u64) {
        self.tries.retain(|sequence, _| *sequence > ack_floor);
    }

    /// The stream may be another one, in which these sequences are other events.
    pub fn forget_all(&mut self) {
        self.tries.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_event::event_with;

    #[test]
    fn tries_are_counted_over_a_hold() {
        let mut retries = Retries::default();
        retries.count_failure(7, DateTime::UNIX_EPOCH, 100);
        retries.note_return(7);
        let tries = retries.count_failure(7, DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(9), 200);
        assert_eq!((tries.failed, tries.applied_before, tries.first_failed_at), (2, Some(100), Some(DateTime::UNIX_EPOCH)));
        retries.forget(7);
        assert_eq!(retries.count_failure(7, DateTime::UNIX_EPOCH, 300).failed, 1);
    }

    #[test]
    fn what_was_given_back_is_not_suspect() {
        let mut retries = Retries::default();
        assert!(retries.is_suspect(&event_with(7, 5)));
        retries.note_return(7);
        assert!(!retries.is_suspect(&event_with(7, 5)));
        assert!(retries.is_suspect(&event_with(7, 6)));
        retries.forget_up_to(7);
        assert!(retries.is_suspect(&event_with(7, 5)));
    }
}
