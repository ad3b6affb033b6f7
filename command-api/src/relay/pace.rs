//! How fast a lane goes. What it learned of that outlives its connections.

use std::time::Duration;

use super::Broken;

/// Waits between two tries: doubles from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// At most about this many bytes of body travel together (PROTOCOL R6); a single event may be larger.
const BATCH_BYTES_MOST: i64 = 4 * 1024 * 1024;
/// Even a slow link carries this much in time.
const BATCH_BYTES_LEAST: i64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long to wait before the next try.
    pub retry: Duration,
    /// How many bytes of body may travel together.
    pub batch_bytes: i64,
}

impl Pace {
    pub const FULL: Self = Self { retry: RETRY_FIRST, batch_bytes: BATCH_BYTES_MOST };

    /// After something broke.
    pub fn after(self, broken: &Broken) -> Self {
        let batch_bytes = match broken {
            // The same batch would take as long again, for ever.
            Broken::Slow(_) => (self.batch_bytes / 2).max(BATCH_BYTES_LEAST),
            Broken::Session(_) | Broken::Broker(_) | Broken::Waiting(_) | Broken::Lost(_) | Broken::Unfit(_) => self.batch_bytes,
        };
        Self { retry: (self.retry * 2).min(RETRY_LAST), batch_bytes }
    }

    /// After a batch went well.
    pub fn after_success(self) -> Self {
        Self { retry: RETRY_FIRST, batch_bytes: (self.batch_bytes + BATCH_BYTES_LEAST).min(BATCH_BYTES_MOST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_takes_too_long_is_halved_and_grows_again_slowly() {
        let slow = Broken::Slow(String::new());
        let slower = Pace::FULL.after(&slow);
        assert_eq!(slower, Pace { retry: 2 * RETRY_FIRST, batch_bytes: BATCH_BYTES_MOST / 2 });
        assert_eq!(slower.after(&Broken::Broker(String::new())).batch_bytes, slower.batch_bytes);
        assert_eq!(slower.after_success(), Pace { retry: RETRY_FIRST, batch_bytes: slower.batch_bytes + BATCH_BYTES_LEAST });
        let slowest = (0..20).fold(Pace::FULL, |pace, _| pace.after(&slow));
        assert_eq!(slowest, Pace { retry: RETRY_LAST, batch_bytes: BATCH_BYTES_LEAST });
        assert_eq!((0..100).fold(slowest, |pace, _| pace.after_success()), Pace::FULL);
        assert_eq!(Pace::FULL.after_success(), Pace::FULL);
    }
}
