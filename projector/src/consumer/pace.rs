//! How much is tried at once: as much as the store can take within a moment.
//!
//! A batch that takes longer than the store's bound is lost as a whole, and would be lost again and again, at one event for each
//! probe in between. So a store that was away is begun with one event, and given twice as many each time that went well.

use std::time::Duration;

use crate::projection::Limits;

/// A full batch that took less than this may be followed by one twice as large.
const QUICK: Duration = Duration::from_secs(2);
/// After one that took longer the next is half as large. Requests are bounded at 10 s and more.
const SLOW: Duration = Duration::from_secs(5);

/// Grows to a projection's limits, and shrinks when its store is strained.
#[derive(Debug)]
pub struct Pace {
    most: Limits,
    attempts: usize,
    events: usize,
}

impl Pace {
    pub fn new(most: Limits) -> Self {
        Self { most, attempts: most.in_flight, events: most.events }
    }

    /// How many attempts may run at once.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    /// How many events one attempt may have.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The store answered an attempt of so many events; `strained` if it asked for some of them to come again later.
    pub fn answered(&mut self, events: usize, took: Duration, strained: bool) {
        self.attempts = if strained { (self.attempts / 2).max(1) } else { (self.attempts + 1).min(self.most.in_flight) };
        if took > SLOW {
            self.events = (events / 2).clamp(1, self.events);
        } else if took < QUICK && events >= self.events {
            self.events = (self.events * 2).min(self.most.events);
        }
    }

    /// The store was away.
    pub fn begin_anew(&mut self) {
        (self.attempts, self.events) = (1, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Limits = Limits { events: 500, bytes: 1024, in_flight: 2 };

    #[test]
    fn a_store_that_was_away_is_given_more_each_time() {
        let mut pace = Pace::new(MOST);
        assert_eq!((pace.attempts(), pace.events()), (2, 500));
        pace.begin_anew();
        assert_eq!((pace.attempts(), pace.events()), (1, 1));
        for due in [2, 4, 8, 16, 32, 64, 128, 256, 500, 500] {
            pace.answered(pace.events(), Duration::from_millis(10), false);
            assert_eq!((pace.attempts(), pace.events()), (2, due));
        }
    }

    #[test]
    fn it_finds_what_a_slow_store_can_take() {
        let mut pace = Pace::new(MOST);
        pace.begin_anew();
        for _ in 0..20 {
            let events = pace.events();
            pace.answered(events, Duration::from_millis(150) * u32::try_from(events).unwrap(), false);
        }
        assert_eq!(pace.events(), 16, "2.4 s");
    }

    #[test]
    fn a_slow_batch_is_followed_by_half_of_it() {
        let mut pace = Pace::new(MOST);
        pace.answered(300, Duration::from_secs(6), false);
        assert_eq!(pace.events(), 150);
        pace.answered(1, Duration::from_secs(6), true);
        assert_eq!((pace.attempts(), pace.events()), (1, 1));
        pace.answered(1, Duration::from_secs(3), false);
        assert_eq!(pace.events(), 1, "neither quick nor slow");
    }

    #[test]
    fn a_batch_that_was_not_full_says_little() {
        let mut pace = Pace::new(MOST);
        pace.answered(40, Duration::from_secs(6), false);
        pace.answered(3, Duration::from_millis(1), false);
        assert_eq!(pace.events(), 20);
    }
}
