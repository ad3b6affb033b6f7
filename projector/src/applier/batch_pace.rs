//! How many events a batch may have, and how many batches may be written at once (decision 0304).
//!
//! A request that exceeds its timeout is lost as a whole, and would be lost again at the same size. So after a loss a batch begins with
//! one event. It doubles while the store is quick, grows by an eighth while it is slow, and stays when it is nearly too slow.

use std::time::Duration;

use crate::projection::WriteLimits;

/// A batch that took no more than this part of the timeout may be doubled: the double then takes at most 80 % of it.
const QUICK: f64 = 0.4;
/// A batch that took more than this part of the timeout is not made larger.
const SLOW: f64 = 0.7;

/// The size of the next batch, within the limits of a projection.
#[derive(Debug)]
pub struct BatchPace {
    limits: WriteLimits,
    in_flight: usize,
    writes: usize,
    /// The size of the last batch that was lost: slow growth stops below it.
    lost: usize,
}

impl BatchPace {
    pub fn new(limits: WriteLimits) -> Self {
        Self { limits, in_flight: limits.in_flight, writes: limits.events, lost: usize::MAX }
    }

    /// How many batches may be written at once.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many writes one batch may have.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// The store answered for a batch of this many writes; `strained` if it wants some of them to be tried again later.
    pub fn answered(&mut self, writes: usize, took: Duration, strained: bool) {
        self.in_flight = if strained { (self.in_flight / 2).max(1) } else { (self.in_flight + 1).min(self.limits.in_flight) };
        let part = took.as_secs_f64() / self.limits.timeout.as_secs_f64();
        let full = writes >= self.writes;
        let next = if strained {
            // Keep two or more: if a batch of one fails, event and store cannot be told apart.
            if part > QUICK { self.writes / 2 } else { self.writes }.max(2)
        } else if part <= QUICK {
            if full { self.writes * 2 } else { self.writes }
        } else if full {
            let more = self.writes + self.writes / 8 + 1;
            if part <= SLOW && more < self.lost { more } else { self.writes }
        } else {
            // A larger one would have taken longer still.
            (self.writes / 2).max(writes)
        };
        self.writes = next.min(self.limits.events);
    }

    /// The store did not answer, or lost a batch of this many writes.
    pub fn lost(&mut self, writes: usize) {
        *self = Self { in_flight: 1, writes: 1, lost: writes, ..*self };
    }

    /// After a hold for another reason: one batch at first, then more.
    pub fn one_in_flight(&mut self) {
        self.in_flight = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WriteLimits = WriteLimits { events: 500, bytes: 1024, in_flight: 2, timeout: Duration::from_secs(10) };

    /// The sizes of full batches for a store that takes some seconds for each request and each write; 0 is one that was lost.
    fn sizes(mut pace: BatchPace, request: f64, write: f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..200 {
            let writes = pace.writes();
            let took = request + write * f64::from(u32::try_from(writes).unwrap());
            if took > pace.limits.timeout.as_secs_f64() {
                pace.lost(writes);
                sizes.push(0);
            } else {
                pace.answered(writes, Duration::from_secs_f64(took), false);
                sizes.push(writes);
            }
        }
        sizes
    }

    #[test]
    fn a_store_that_was_away_is_given_more_each_time() {
        let mut pace = BatchPace::new(LIMITS);
        assert_eq!((pace.in_flight(), pace.writes()), (2, 500));
        pace.lost(500);
        assert_eq!(pace.in_flight(), 1);
        assert_eq!(sizes(pace, 0.005, 0.0)[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn few_batches_are_lost_and_growth_never_stands_still() {
        let timeout = LIMITS.timeout.as_secs_f64();
        for request in [0.0, 0.01, 0.1, 0.3, 0.4, 0.6] {
            for write in [0.0, 0.000_1, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3] {
                let (request, write) = (request * timeout, write * timeout);
                let sizes = sizes(BatchPace::new(LIMITS), request, write);
                let lost = sizes.iter().filter(|size| **size == 0).count();
                assert!(lost <= 2, "the first, and the second try of two: {request} + {write}: {sizes:?}");
                // The steady size takes more than the quick part of the timeout, or is the limit, or would be lost with one more.
                let steady = &sizes[100..];
                let took = |size: usize| request + write * f64::from(u32::try_from(size).unwrap());
                let due = |size: usize| took(size) > QUICK * timeout || size == LIMITS.events;
                assert!(steady.iter().all(|size| due(*size) && *size == steady[0]), "{request} + {write}: {sizes:?}");
                let grows = took(steady[0]) > SLOW * timeout || steady[0] == LIMITS.events || took(steady[0] * 2) > timeout;
                assert!(grows, "{request} + {write}: {sizes:?}");
            }
        }
    }

    #[test]
    fn a_strained_store_is_given_no_more_than_two() {
        let mut pace = BatchPace::new(LIMITS);
        pace.lost(500);
        for _ in 0..3 {
            pace.answered(pace.writes(), Duration::from_millis(1), true);
            assert_eq!((pace.in_flight(), pace.writes()), (1, 2));
        }
        let mut pace = BatchPace::new(LIMITS);
        pace.answered(500, Duration::from_secs(9), true);
        assert_eq!((pace.in_flight(), pace.writes()), (1, 250), "slow as well");
    }

    #[test]
    fn a_slow_batch_that_was_not_full_halves_the_next_one() {
        let mut pace = BatchPace::new(LIMITS);
        pace.answered(40, Duration::from_secs(6), false);
        assert_eq!(pace.writes(), 250);
        pace.answered(3, Duration::from_millis(1), false);
        assert_eq!(pace.writes(), 250, "a quick one says little");
        pace.answered(200, Duration::from_secs(6), false);
        assert_eq!(pace.writes(), 200, "it was this large itself");
    }
}
