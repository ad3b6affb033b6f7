//! How much is tried at once: as much as the store can take within its bound.
//!
//! A request that takes longer is lost as a whole, and would be lost again and again, at one event for each probe in between. So a
//! store that was away is begun with one write, and given twice as many each time that went well.

use std::time::Duration;

use crate::projection::Limits;

/// A full batch that took less than this part of the bound may be followed by one twice as large, another by one a little larger.
const QUICK: f64 = 0.2;
/// After one that took more of it the next is half as large.
const SLOW: f64 = 0.5;
/// If twice as many writes, or half as many, took this part of the time at least, it is not their number that takes it.
const ALL_THE_SAME: f64 = 0.75;

/// Grows to a projection's limits, and shrinks when its store is strained.
#[derive(Debug)]
pub struct Pace {
    most: Limits,
    attempts: usize,
    writes: usize,
    /// How many the last answered attempt had, and what it took.
    last: Option<(usize, Duration)>,
}

impl Pace {
    pub fn new(most: Limits) -> Self {
        Self { most, attempts: most.in_flight, writes: most.events, last: None }
    }

    /// How many attempts may run at once.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    /// How many aggregates one attempt may write.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// The store answered an attempt of so many writes; `strained` if it asked for some of them to come again later.
    pub fn answered(&mut self, writes: usize, took: Duration, strained: bool) {
        let last = self.last.replace((writes, took));
        if strained {
            self.attempts = (self.attempts / 2).max(1);
            // One alone never shows whether it is at fault, or its store.
            self.writes = self.writes.max(2).min(self.most.events);
            return;
        }
        self.attempts = (self.attempts + 1).min(self.most.in_flight);
        let all_the_same = last.is_some_and(|(then, before)| {
            let (fewer, more) = (writes.min(then), writes.max(then));
            fewer * 2 <= more && took.min(before) >= took.max(before).mul_f64(ALL_THE_SAME)
        });
        let twice = (self.writes * 2).min(self.most.events);
        if took > self.most.within.mul_f64(SLOW) {
            // One cannot be halved, and says nothing of two.
            self.writes = if all_the_same || self.writes == 1 { twice } else { (writes / 2).clamp(1, self.writes) };
        } else if writes >= self.writes {
            let a_little = (self.writes + self.writes / 4 + 1).min(self.most.events);
            self.writes = if all_the_same || took < self.most.within.mul_f64(QUICK) { twice } else { a_little };
        }
    }

    /// The store was away.
    pub fn begin_anew(&mut self) {
        *self = Self { most: self.most, attempts: 1, writes: 1, last: None };
    }

    /// The store is there, and what is written was in doubt.
    pub fn one_at_a_time(&mut self) {
        self.attempts = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Limits = Limits { events: 500, bytes: 1024, in_flight: 2, within: Duration::from_secs(10) };

    /// The sizes of full batches, to a store that takes a while for each request and each write; 0 is one that was lost.
    fn sizes(mut pace: Pace, request: Duration, write: Duration) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..200 {
            let writes = pace.writes();
            let took = request + write * u32::try_from(writes).unwrap();
            if took > pace.most.within {
                pace.begin_anew();
                sizes.push(0);
            } else {
                pace.answered(writes, took, false);
                sizes.push(writes);
            }
        }
        sizes
    }

    #[test]
    fn a_store_that_was_away_is_given_more_each_time() {
        let mut pace = Pace::new(MOST);
        assert_eq!((pace.attempts(), pace.writes()), (2, 500));
        pace.begin_anew();
        assert_eq!(pace.attempts(), 1);
        let sizes = sizes(pace, Duration::from_millis(5), Duration::ZERO);
        assert_eq!(sizes[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn it_finds_what_a_slow_store_can_take() {
        for (within, write) in [(10_000, 150), (10_000, 40), (2_000, 10), (15_000, 400)] {
            let (within, write) = (Duration::from_millis(within), Duration::from_millis(write));
            let sizes = sizes(Pace::new(Limits { within, ..MOST }), Duration::ZERO, write);
            let lost = sizes.iter().filter(|size| **size == 0).count();
            assert!(lost <= 1, "only the first, which nobody had tried before: {sizes:?}");
            let sixth = |size: usize| write * u32::try_from(size).unwrap() > within / 6;
            assert!(sizes[20..].iter().all(|size| sixth(*size)), "{sizes:?}");
        }
    }

    #[test]
    fn what_takes_as_long_for_one_as_for_many_is_given_many() {
        for request in [3, 6, 9] {
            let request = Duration::from_secs(request);
            let before = sizes(Pace::new(MOST), request, Duration::ZERO);
            assert!(before.iter().all(|size| *size >= 250), "{before:?}");
            let mut pace = Pace::new(MOST);
            pace.begin_anew();
            let after = sizes(pace, request, Duration::ZERO);
            assert!(after[20..].iter().all(|size| *size >= 250), "{after:?}");
        }
    }

    #[test]
    fn a_strained_store_is_given_no_more() {
        let mut pace = Pace::new(MOST);
        pace.begin_anew();
        for _ in 0..3 {
            pace.answered(pace.writes(), Duration::from_millis(1), true);
            assert_eq!((pace.attempts(), pace.writes()), (1, 2));
        }
    }

    #[test]
    fn a_batch_that_was_not_full_says_little() {
        let mut pace = Pace::new(MOST);
        pace.answered(40, Duration::from_secs(6), false);
        pace.answered(3, Duration::from_millis(1), false);
        assert_eq!(pace.writes(), 20);
    }
}
