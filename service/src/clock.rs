//! The time, as an argument. No other place reads the system's clock.

use chrono::{DateTime, SubsecRound as _, Utc};

/// PostgreSQL stores microseconds. A time with more digits would differ after it was stored and read.
const DIGITS_KEPT: u16 = 6;

/// The source of the present time: the system, or a fixed time in tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    System,
    Fixed(DateTime<Utc>),
}

impl Clock {
    /// The present time, truncated to microseconds.
    #[must_use]
    pub fn now(self) -> DateTime<Utc> {
        let now = match self {
            #[expect(clippy::disallowed_methods, reason = "all other code takes the time from this clock")]
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
