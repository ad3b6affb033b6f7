//! How much is tried at once: as much as the store can take within its bound.
//!
//! A request that takes longer is lost as a whole, and would be lost again and again, at one event for each probe in between. So a
//! store that was away is begun with one write, and given more as long as what it took lets expect that more will do.

use std::time::Duration;

use crate::projection::WriteLimits;

/// What a batch should take of the bound: a busy moment takes twice as long.
const COMFORTABLE: f64 = 0.5;
/// More than this is asking for a loss.
const EDGE: f64 = 0.9;
/// If half of it would take more than this part of the time, it is not the number that takes it.
const ALL_THE_SAME: f64 = 0.75;

/// Grows to a projection's limits, and shrinks when its store is strained.
#[derive(Debug)]
pub struct BatchPace {
    most: WriteLimits,
    attempts: usize,
    writes: usize,
    /// The last full batch: how many writes it had, and what it took, in seconds.
    last: Option<(usize, f64)>,
    /// How many writes the last request had that was lost.
    lost: usize,
}

impl BatchPace {
    pub fn new(most: WriteLimits) -> Self {
        Self { most, attempts: most.in_flight, writes: most.events, last: None, lost: 0 }
    }

    /// How many attempts may run at once.
    pub fn in_flight(&self) -> usize {
        self.attempts
    }

    /// How many aggregates one attempt may write.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// The store answered an attempt of so many writes; `strained` if it asked for some of them to come again later.
    pub fn answered(&mut self, writes: usize, took: Duration, strained: bool) {
        self.attempts = if strained { (self.attempts / 2).max(1) } else { (self.attempts + 1).min(self.most.in_flight) };
        let took = took.as_secs_f64();
        let full = writes >= self.writes;
        self.writes = match self.fewer(writes, took) {
            Some(fewer) => fewer,
            None if full && !strained => self.more(writes, took),
            None => self.writes,
        };
        if strained {
            // One alone never shows whether it is at fault, or its store.
            self.writes = self.writes.max(2).min(self.most.events);
        } else if full {
            self.last = Some((writes, took));
        }
    }

    /// The store was away, or lost a request of so many writes.
    pub fn lost(&mut self, lost: usize) {
        *self = Self { attempts: 1, writes: 1, lost, ..Self::new(self.most) };
    }

    /// After a hold for another reason: one attempt first, then more.
    pub fn one_in_flight(&mut self) {
        self.attempts = 1;
    }

    /// If it took too long, and fewer would take less.
    fn fewer(&self, writes: usize, took: f64) -> Option<usize> {
        let half = (writes / 2).clamp(1, self.writes);
        let helps = self.expected(half, writes, took) < took * ALL_THE_SAME;
        (took > self.bound() * COMFORTABLE && helps).then_some(half)
    }

    fn more(&self, writes: usize, took: f64) -> usize {
        let twice = (self.writes * 2).min(self.most.events);
        let a_few = (self.writes + self.writes / 4 + 1).min(self.most.events);
        let expected = |number| self.expected(number, writes, took);
        let all_the_same = expected(twice) * ALL_THE_SAME <= took && expected(twice) <= self.bound() * EDGE;
        // One says nothing of how the time depends on their number.
        let tells_nothing = self.writes == 1 && self.lost != twice;
        if expected(twice) <= self.bound() * COMFORTABLE || all_the_same || tells_nothing {
            twice
        } else if expected(a_few) <= self.bound() * COMFORTABLE {
            a_few
        } else {
            self.writes
        }
    }

    /// What so many would take: on a line through this batch and the last one, or, without one of another size, in proportion.
    fn expected(&self, number: usize, writes: usize, took: f64) -> f64 {
        let (then, before) = self.last.filter(|(then, _)| *then != writes).unwrap_or((0, 0.0));
        let each = (took - before) / (real(writes) - real(then));
        took + each.max(0.0) * (real(number) - real(writes))
    }

    fn bound(&self) -> f64 {
        self.most.timeout.as_secs_f64()
    }
}

fn real(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: WriteLimits = WriteLimits { events: 500, bytes: 1024, in_flight: 2, timeout: Duration::from_secs(10) };

    /// The sizes of full batches, to a store that takes a while for each request and each write; 0 is one that was lost.
    fn sizes(mut pace: BatchPace, request: f64, write: f64) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..200 {
            let writes = pace.writes();
            let took = request + write * real(writes);
            if took > pace.bound() {
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
        let mut pace = BatchPace::new(MOST);
        assert_eq!((pace.in_flight(), pace.writes()), (2, 500));
        pace.lost(500);
        assert_eq!(pace.in_flight(), 1);
        assert_eq!(sizes(pace, 0.005, 0.0)[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn it_finds_what_a_store_can_take_and_loses_little_on_the_way() {
        for within in [2, 10, 15] {
            let most = WriteLimits { timeout: Duration::from_secs(within), ..MOST };
            let bound = most.timeout.as_secs_f64();
            for request in [0.0, 0.01, 0.1, 0.3, 0.4, 0.6, 0.8] {
                for write in [0.0, 0.000_1, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3] {
                    let (request, write) = (request * bound, write * bound);
                    if request + write > bound {
                        continue;
                    }
                    let sizes = sizes(BatchPace::new(most), request, write);
                    let lost = sizes.iter().filter(|size| **size == 0).count();
                    assert!(lost <= 2, "the first, and the second try of two: {request} + {write}: {sizes:?}");
                    // Half of what would fit into half of the bound, or into the rest of it if the request alone takes half.
                    let room = if request < bound * 0.4 { bound * 0.5 - request } else { (bound - request) * 0.2 };
                    let due = if write > 0.0 { (room / write / 2.0).min(250.0) } else { 250.0 };
                    let steady = &sizes[50..];
                    assert!(steady.iter().all(|size| real(*size) >= due.floor()), "{request} + {write}: {due}, {sizes:?}");
                }
            }
        }
    }

    #[test]
    fn a_strained_store_is_given_no_more_than_two() {
        let mut pace = BatchPace::new(MOST);
        pace.lost(500);
        for _ in 0..3 {
            pace.answered(pace.writes(), Duration::from_millis(1), true);
            assert_eq!((pace.in_flight(), pace.writes()), (1, 2));
        }
        let mut pace = BatchPace::new(MOST);
        pace.answered(500, Duration::from_secs(9), true);
        assert_eq!((pace.in_flight(), pace.writes()), (1, 250), "slow as well");
    }

    #[test]
    fn a_batch_that_was_not_full_says_little() {
        let mut pace = BatchPace::new(MOST);
        pace.answered(40, Duration::from_secs(6), false);
        pace.answered(3, Duration::from_millis(1), false);
        assert_eq!(pace.writes(), 20);
        pace.answered(20, Duration::from_secs(4), false);
        pace.answered(1, Duration::from_secs(4), false);
        pace.answered(20, Duration::from_secs(4), false);
        assert_eq!(pace.writes(), 20, "it waited beside a large one");
    }
}
