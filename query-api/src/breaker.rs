//! Stops asking a dependency that does not answer, so that callers get the second-best answer at once instead of waiting.
//!
//! Closed: everything passes. Open, after several failures in a row: nothing does. Half-open, after a while: one request
//! probes, and its outcome closes or opens the breaker again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::{info, warn};

/// One lost connection is an accident, this many failures in a row are an outage.
const FAILURES: u32 = 5;
/// Short enough that the first request after an outage does not wait long for it to be noticed, long enough that a
/// struggling dependency is left alone.
const OPEN_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// Guards one dependency.
#[derive(Debug)]
pub struct Breaker {
    dependency: &'static str,
    state: Mutex<State>,
    /// 0 closed, 1 half-open, 2 open.
    shown: Gauge,
}

impl Breaker {
    #[must_use]
    pub fn new(dependency: &'static str, shown: Gauge) -> Self {
        shown.set(0);
        Self { dependency, state: Mutex::new(State::Closed { failures: 0 }), shown }
    }

    /// Leave to ask the dependency; `None` while it is not to be asked.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Some(Permit { breaker: self, is_probe: false, judged: false }),
            State::Open { until } if Instant::now() >= until => {
                self.turn(&mut state, State::HalfOpen);
                Some(Permit { breaker: self, is_probe: true, judged: false })
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    fn turn(&self, state: &mut State, next: State) {
        let name = self.dependency;
        let shown = match next {
            State::Closed { .. } => {
                info!(dependency = name, "{name} answers again");
                0
            }
            State::HalfOpen => 1,
            State::Open { .. } => {
                // A failed probe only says what is known.
                if matches!(state, State::Closed { .. }) {
                    warn!(dependency = name, "{name} does not answer; it is left alone, but for a probe now and then");
                }
                2
            }
        };
        self.shown.set(shown);
        *state = next;
    }

    fn judge(&self, is_probe: bool, answered: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = || State::Open { until: Instant::now() + OPEN_FOR };
        match (*state, answered) {
            // The usual case writes nothing.
            (State::Closed { failures: 0 }, true) => {}
            (State::Closed { .. }, true) => *state = State::Closed { failures: 0 },
            (State::Closed { failures }, false) if failures + 1 < FAILURES => *state = State::Closed { failures: failures + 1 },
            (State::Closed { .. }, false) => self.turn(&mut state, opened()),
            (State::HalfOpen, true) if is_probe => self.turn(&mut state, State::Closed { failures: 0 }),
            (State::HalfOpen, false) if is_probe => self.turn(&mut state, opened()),
            // Requests from before the breaker opened: the probe decides.
            (State::HalfOpen | State::Open { .. }, _) => {}
        }
    }
}

/// Must be told how it went.
#[derive(Debug)]
#[must_use = "say whether the dependency answered"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    judged: bool,
}

impl Permit<'_> {
    pub fn answered(mut self) {
        self.judged = true;
        self.breaker.judge(self.is_probe, true);
    }

    pub fn failed(mut self) {
        self.judged = true;
        self.breaker.judge(self.is_probe, false);
    }
}

impl Drop for Permit<'_> {
    /// The caller went away. An ordinary request says nothing then; a probe must not leave the breaker half-open for ever.
    fn drop(&mut self) {
        if self.is_probe && !self.judged {
            self.breaker.judge(true, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (Breaker, Gauge) {
        let gauge = Gauge::default();
        let breaker = Breaker::new("a store", gauge.clone());
        for _ in 0..FAILURES {
            breaker.permit().unwrap().failed();
        }
        (breaker, gauge)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it() {
        let breaker = Breaker::new("a store", Gauge::default());
        for _ in 1..FAILURES {
            breaker.permit().unwrap().failed();
        }
        breaker.permit().unwrap().answered();
        for _ in 1..FAILURES {
            breaker.permit().unwrap().failed();
        }
        assert!(breaker.permit().is_some(), "an answer in between starts the count again");

        let (breaker, gauge) = opened();
        assert!(breaker.permit().is_none());
        assert_eq!(gauge.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_decides() {
        let (breaker, gauge) = opened();
        tokio::time::advance(OPEN_FOR).await;
        let probe = breaker.permit().unwrap();
        assert!(breaker.permit().is_none(), "only one");
        assert_eq!(gauge.get(), 1);
        probe.failed();
        assert!(breaker.permit().is_none());

        tokio::time::advance(OPEN_FOR).await;
        breaker.permit().unwrap().answered();
        assert!(breaker.permit().is_some());
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_opens_it_again() {
        let (breaker, gauge) = opened();
        tokio::time::advance(OPEN_FOR).await;
        drop(breaker.permit().unwrap());
        assert_eq!(gauge.get(), 2);
        tokio::time::advance(OPEN_FOR).await;
        assert!(breaker.permit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_from_before_does_not_close_it() {
        let gauge = Gauge::default();
        let breaker = Breaker::new("a store", gauge.clone());
        let slow = breaker.permit().unwrap();
        for _ in 0..FAILURES {
            breaker.permit().unwrap().failed();
        }
        slow.answered();
        assert!(breaker.permit().is_none());
        assert_eq!(gauge.get(), 2);
    }
}
