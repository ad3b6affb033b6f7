//! Events that wait for another try, by their sequence in the stream (PROTOCOL P4).
//!
//! What is known of an event outlives a hold, so that its tries are counted on; it ends when the event is answered.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::delivery::Chain;

/// Handed out this often without a verdict, an event may be what kills its projector: it is tried alone.
const SUSPECT_AFTER: u64 = 5;

/// What became of an event so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tries {
    /// How often it failed.
    pub failed: u32,
    /// When it failed first.
    pub first_failed_at: Option<DateTime<Utc>>,
    /// How many events had been applied when it failed first.
    pub applied_before: Option<u64>,
    /// How often we gave it back on purpose: that is no sign of a death.
    given_back: u64,
}

#[derive(Debug, Default)]
pub struct Retries {
    tries: HashMap<u64, Tries>,
    waiting: BTreeMap<(Instant, u64), Chain>,
}

impl Retries {
    /// Counts a failed try of the event at this sequence.
    pub fn failed(&mut self, sequence: u64, now: DateTime<Utc>, applied: u64) -> Tries {
        self.refused(sequence, now, applied);
        let tries = self.tries.entry(sequence).or_default();
        tries.failed += 1;
        *tries
    }

    /// The event was not taken, and nobody knows yet whether the store or the event is to blame: that is no try.
    pub fn refused(&mut self, sequence: u64, now: DateTime<Utc>, applied: u64) {
        let tries = self.tries.entry(sequence).or_default();
        tries.applied_before.get_or_insert(applied);
        tries.first_failed_at.get_or_insert(now);
    }

    /// Lets the chain wait for its next try.
    pub fn wait(&mut self, until: Instant, chain: Chain) {
        self.waiting.insert((until, chain.head().sequence), chain);
    }

    /// When the next try is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// The chain that has been due for longest, if there is one and it fits.
    pub fn take_due(&mut self, now: Instant, fits: impl FnOnce(&Chain) -> bool) -> Option<Chain> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now && fits(entry.get())).then(|| entry.remove())
    }

    /// How many events wait, the superseded ones included: each takes a place of `max_ack_pending`.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(Chain::len).sum()
    }

    /// The event was given back to the broker: it does not wait here any more.
    pub fn given_back(&mut self, sequence: u64) {
        self.tries.entry(sequence).or_default().given_back += 1;
    }

    /// Nothing waits any more: everything was given back.
    pub fn clear_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The event was answered for good.
    pub fn answered(&mut self, sequence: u64) {
        self.tries.remove(&sequence);
    }

    /// Whether the event was handed out too often without ever being judged.
    pub fn is_suspect(&self, sequence: u64, delivered: u64) -> bool {
        let tries = self.tries.get(&sequence).copied().unwrap_or_default();
        tries.failed == 0 && delivered.saturating_sub(tries.given_back) >= SUSPECT_AFTER
    }

    /// Everything up to this sequence was answered, perhaps by another process.
    pub fn forget_up_to(&mut self, floor: u64) {
        self.tries.retain(|sequence, _| *sequence > floor);
    }

    /// The stream may not be the one it was: then its sequences mean other events now.
    pub fn forget_all(&mut self) {
        self.tries.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_over_a_hold() {
        let mut retries = Retries::default();
        retries.failed(7, DateTime::UNIX_EPOCH, 100);
        retries.given_back(7);
        let tries = retries.failed(7, DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(9), 200);
        assert_eq!((tries.failed, tries.applied_before, tries.first_failed_at), (2, Some(100), Some(DateTime::UNIX_EPOCH)));
        retries.answered(7);
        assert_eq!(retries.failed(7, DateTime::UNIX_EPOCH, 300).failed, 1);
    }

    #[test]
    fn what_was_given_back_is_not_suspect() {
        let mut retries = Retries::default();
        assert!(retries.is_suspect(7, 5));
        retries.given_back(7);
        assert!(!retries.is_suspect(7, 5));
        assert!(retries.is_suspect(7, 6));
        retries.forget_up_to(7);
        assert!(retries.is_suspect(7, 5));
    }
}
