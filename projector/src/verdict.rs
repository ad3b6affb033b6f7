//! What is done about an event after each try. The only place that decides it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::{
    projection::{Failure, Outcome},
    settings::Backoff,
};

/// What is done about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledge it.
    Done,
    /// Try it again, at most after this.
    RetryAfter(Duration),
    /// Put it aside, and say why.
    DeadLetter(Class),
    /// The store is to blame: give everything back, and wait.
    Hold,
}

/// Why an event was put aside; a token of its dead letter's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It can never be applied.
    Poison,
    /// It failed too often, while others succeeded.
    Exhausted,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Exhausted => "exhausted",
        }
    }
}

impl Verdict {
    /// Decides about the `attempt`-th try of an event, counted from 1. While nothing else succeeds either, the store is to
    /// blame, not the event.
    pub fn of(outcome: &Outcome, attempt: u32, others_applied: bool, backoff: &Backoff) -> Self {
        match outcome {
            Ok(_) => Self::Done,
            Err(Failure::Poison(_)) => Self::DeadLetter(Class::Poison),
            Err(Failure::Transient(_)) => match delay_after(attempt, backoff) {
                Some(delay) => Self::RetryAfter(delay),
                None if others_applied => Self::DeadLetter(Class::Exhausted),
                None => Self::Hold,
            },
        }
    }
}

/// The base, doubling up to the cap; after the last attempt, none.
fn delay_after(attempt: u32, backoff: &Backoff) -> Option<Duration> {
    debug_assert!(attempt >= 1, "attempts are counted from 1");
    let delays = ExponentialBuilder::new()
        .with_min_delay(backoff.base)
        .with_max_delay(backoff.cap)
        .with_max_times(backoff.attempts.saturating_sub(1) as usize);
    delays.build().nth(attempt.saturating_sub(1) as usize)
}

/// Full jitter: anything below the delay, so that what failed together is not tried again together.
pub fn jittered(delay: Duration) -> Duration {
    // backon adds its jitter to the delay: the delay is taken off again.
    let delays = ExponentialBuilder::new().with_min_delay(delay).with_max_delay(delay).with_jitter();
    delays.build().next().unwrap_or(delay).saturating_sub(delay)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::projection::Stored;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30), attempts: 10 };

    fn transient() -> Outcome {
        Err(Failure::Transient(anyhow!("429")))
    }

    #[test]
    fn what_is_stored_is_done() {
        assert_eq!(Verdict::of(&Ok(Stored::Applied), 3, false, &BACKOFF), Verdict::Done);
        assert_eq!(Verdict::of(&Ok(Stored::Superseded), 99, false, &BACKOFF), Verdict::Done);
    }

    #[test]
    fn poison_is_put_aside_at_once() {
        let poison = Err(Failure::Poison(anyhow!("strict_dynamic_mapping_exception")));
        assert_eq!(Verdict::of(&poison, 1, false, &BACKOFF), Verdict::DeadLetter(Class::Poison));
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
        assert_eq!(Verdict::of(&transient(), 9, true, &BACKOFF), Verdict::RetryAfter(Duration::from_secs(30)));
        assert_eq!(Verdict::of(&transient(), 10, true, &BACKOFF), Verdict::DeadLetter(Class::Exhausted));
        assert_eq!(Verdict::of(&transient(), 10, false, &BACKOFF), Verdict::Hold);
    }

    #[test]
    fn jitter_is_full() {
        let delay = Duration::from_secs(8);
        let waits: Vec<Duration> = (0..200).map(|_| jittered(delay)).collect();
        assert!(waits.iter().all(|wait| *wait < delay));
        assert!(waits.iter().any(|wait| *wait < delay / 4) && waits.iter().any(|wait| *wait > delay / 4 * 3));
    }
}
