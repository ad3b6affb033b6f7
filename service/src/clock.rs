//! The time, as an argument: the only place that asks the system for it.

use chrono::{DateTime, SubsecRound as _, Utc};

/// PostgreSQL keeps microseconds. A time with more digits would not equal its own round trip, and ETags, events and
/// snapshots made from it would differ.
const DIGITS_KEPT: u16 = 6;

/// Where a program takes its time from; tests name one of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    System,
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// The present moment, cut to whole microseconds.
    #[must_use]
    pub fn now(self) -> DateTime<Utc> {
        let now = match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else is sent to")]
            Self::System => Utc::now(),
            Self::Fixed(at) => at,
        };
        now.trunc_subsecs(DIGITS_KEPT)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn no_time_has_more_than_microseconds() {
        let fine = DateTime::UNIX_EPOCH + TimeDelta::nanoseconds(1_234_567);
        assert_eq!(Clock::Fixed(fine).now(), DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_234));
        assert_eq!(Clock::System.now().timestamp_subsec_nanos() % 1_000, 0);
    }
}
