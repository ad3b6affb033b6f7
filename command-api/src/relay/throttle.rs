//! How long a lane waits before it reconnects, and how large its batches may be: a rule without I/O.

use std::time::Duration;

use super::LaneError;

/// Delay before a reconnect: doubles from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Upper bound of a batch's bodies, in bytes (PROTOCOL R6). A single event may be larger.
const BATCH_BYTES_MOST: i64 = 4 * 1024 * 1024;
/// A slow link carries this many bytes within the send timeout.
const BATCH_BYTES_LEAST: i64 = 64 * 1024;

/// The retry delay and the batch size of a lane. Both outlive the lane's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneThrottle {
    /// Delay before the next attempt to connect.
    pub retry_delay: Duration,
    /// Bytes of bodies that one batch may hold.
    pub batch_bytes: i64,
}

impl LaneThrottle {
    pub const FULL: Self = Self { retry_delay: RETRY_FIRST, batch_bytes: BATCH_BYTES_MOST };

    /// Doubles the delay; after a timeout it also halves the batch, because the same batch would time out again.
    pub fn after_error(self, error: &LaneError) -> Self {
        let batch_bytes = match error {
            LaneError::Timeout(_) => (self.batch_bytes / 2).max(BATCH_BYTES_LEAST),
            LaneError::Session(_)
            | LaneError::Broker(_)
            | LaneError::Unavailable(_)
            | LaneError::Loss(_)
            | LaneError::Misconfigured(_) => self.batch_bytes,
        };
        Self { retry_delay: (self.retry_delay * 2).min(RETRY_LAST), batch_bytes }
    }

    /// Resets the delay, and lets the batch grow by one step.
    pub fn after_success(self) -> Self {
        Self { retry_delay: RETRY_FIRST, batch_bytes: (self.batch_bytes + BATCH_BYTES_LEAST).min(BATCH_BYTES_MOST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_takes_too_long_is_halved_and_grows_again_slowly() {
        let timeout = LaneError::Timeout(String::new());
        let slower = LaneThrottle::FULL.after_error(&timeout);
        assert_eq!(slower, LaneThrottle { retry_delay: 2 * RETRY_FIRST, batch_bytes: BATCH_BYTES_MOST / 2 });
        assert_eq!(slower.after_error(&LaneError::Broker(String::new())).batch_bytes, slower.batch_bytes);
        let faster = LaneThrottle { retry_delay: RETRY_FIRST, batch_bytes: slower.batch_bytes + BATCH_BYTES_LEAST };
        assert_eq!(slower.after_success(), faster);
        let slowest = (0..20).fold(LaneThrottle::FULL, |throttle, _| throttle.after_error(&timeout));
        assert_eq!(slowest, LaneThrottle { retry_delay: RETRY_LAST, batch_bytes: BATCH_BYTES_LEAST });
        assert_eq!((0..100).fold(slowest, |throttle, _| throttle.after_success()), LaneThrottle::FULL);
        assert_eq!(LaneThrottle::FULL.after_success(), LaneThrottle::FULL);
    }
}
