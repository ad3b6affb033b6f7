//! Decides what is done about a failed event; no other module does (PROTOCOL P5). Which kind of failure it is, is decided by the
//! projection's store (`projections/*`).

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::{dead_letters::DeadLetterClass, projection::EventFailure, settings::Backoff};

/// What is done about an event that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureVerdict {
    /// Try it again, at most after this.
    RetryAfter(Duration),
    DeadLetter(DeadLetterClass),
    /// Only a newer program can read it: the source offers it to another process. That is no try.
    LeaveToNewer,
    /// The store is at fault: hold.
    Hold,
}

impl FailureVerdict {
    /// Decides about the `attempt`-th failed try of an event, counted from 1. While no other event is applied either, the store is at
    /// fault and not the event.
    pub fn of(failure: &EventFailure, attempt: u32, others_applied: bool, backoff: &Backoff) -> Self {
        match failure {
            EventFailure::Newer { .. } => Self::LeaveToNewer,
            EventFailure::Poison(_) => Self::DeadLetter(DeadLetterClass::Poison),
            EventFailure::Transient(_) => match delay_after(attempt, backoff) {
                Some(delay) => Self::RetryAfter(delay),
                None if others_applied => Self::DeadLetter(DeadLetterClass::Exhausted),
                None => Self::Hold,
            },
        }
    }
}

/// The backoff after a failed try: the base, doubling up to the cap; `None` after the last attempt.
fn delay_after(attempt: u32, backoff: &Backoff) -> Option<Duration> {
    debug_assert!(attempt >= 1, "attempts are counted from 1");
    let delays = ExponentialBuilder::new()
        .with_min_delay(backoff.base)
        .with_max_delay(backoff.cap)
        .with_max_times(backoff.attempts.saturating_sub(1) as usize);
    delays.build().nth(attempt.saturating_sub(1) as usize)
}

/// Full jitter: any delay below this one, so that events which failed together are not tried again together.
pub fn jittered(delay: Duration) -> Duration {
    // backon adds its jitter to the delay: the delay is subtracted again.
    let delays = ExponentialBuilder::new().with_min_delay(delay).with_max_delay(delay).with_jitter();
    delays.build().next().unwrap_or(delay).saturating_sub(delay)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30), attempts: 10 };

    fn transient() -> EventFailure {
        EventFailure::Transient(anyhow!("429"))
    }

    #[test]
    fn poison_becomes_a_dead_letter_at_once() {
        let poison = EventFailure::Poison(anyhow!("strict_dynamic_mapping_exception"));
        assert_eq!(FailureVerdict::of(&poison, 1, false, &BACKOFF), FailureVerdict::DeadLetter(DeadLetterClass::Poison));
    }

    #[test]
    fn an_event_of_a_newer_program_is_never_a_dead_letter() {
        let newer = EventFailure::Newer { event_type: "listing.created.v2".to_owned() };
        assert_eq!(FailureVerdict::of(&newer, 100, true, &BACKOFF), FailureVerdict::LeaveToNewer);
    }

    #[test]
    fn a_delay_doubles_up_to_the_cap() {
        let delays: Vec<u128> = (1..10).map(|attempt| delay_after(attempt, &BACKOFF).unwrap().as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert_eq!(delay_after(10, &BACKOFF), None);
        assert_eq!(delay_after(1, &Backoff { attempts: 1, ..BACKOFF }), None);
    }

    #[test]
    fn a_spent_budget_is_the_events_fault_only_while_others_succeed() {
        let verdict = |attempt, others_applied| FailureVerdict::of(&transient(), attempt, others_applied, &BACKOFF);
        assert_eq!(verdict(9, true), FailureVerdict::RetryAfter(Duration::from_secs(30)));
        assert_eq!(verdict(10, true), FailureVerdict::DeadLetter(DeadLetterClass::Exhausted));
        assert_eq!(verdict(10, false), FailureVerdict::Hold);
    }

    #[test]
    fn jitter_is_full() {
        let delay = Duration::from_secs(8);
        let waits: Vec<Duration> = (0..200).map(|_| jittered(delay)).collect();
        assert!(waits.iter().all(|wait| *wait < delay));
        assert!(waits.iter().any(|wait| *wait < delay / 4) && waits.iter().any(|wait| *wait > delay / 4 * 3));
    }
}
