//! A circuit breaker: stops calling a dependency that fails, so that callers fall back at once instead of waiting.
//!
//! Closed: every call passes. Open, after several failures in a row: no call passes. Half-open, after a while: one call probes the
//! dependency, and its outcome closes or opens the breaker again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::{info, warn};

/// Failures in a row that open the breaker. A single lost connection does not.
const FAILURES: u32 = 5;
/// Time between probes: short enough to notice soon that an outage is over, long enough to leave an overloaded dependency alone.
const OPEN_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// The breaker of one dependency.
#[derive(Debug)]
pub struct Breaker {
    dependency: &'static str,
    state: Mutex<BreakerState>,
    /// 0 closed, 1 half-open, 2 open.
    gauge: Gauge,
}

impl Breaker {
    pub fn new(dependency: &'static str, gauge: Gauge) -> Self {
        gauge.set(0);
        Self { dependency, state: Mutex::new(BreakerState::Closed { failures: 0 }), gauge }
    }

    /// Permits a call; `None` while the dependency must not be called.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            BreakerState::Closed { .. } => Some(Permit { breaker: self, is_probe: false, recorded: false }),
            BreakerState::Open { until } if Instant::now() >= until => {
                self.enter(&mut state, BreakerState::HalfOpen);
                Some(Permit { breaker: self, is_probe: true, recorded: false })
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen => None,
        }
    }

    fn enter(&self, state: &mut BreakerState, next: BreakerState) {
        let name = self.dependency;
        let value = match next {
            BreakerState::Closed { .. } => {
                info!(dependency = name, "Circuit breaker closed: {name} answers again");
                0
            }
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => {
                // A failed probe is not news.
                if matches!(state, BreakerState::Closed { .. }) {
                    warn!(dependency = name, "Circuit breaker opened: {name} fails repeatedly");
                }
                2
            }
        };
        self.gauge.set(value);
        *state = next;
    }

    fn record(&self, is_probe: bool, answered: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = || BreakerState::Open { until: Instant::now() + OPEN_FOR };
        match (*state, answered) {
            // The usual case changes nothing.
            (BreakerState::Closed { failures: 0 }, true) => {}
            (BreakerState::Closed { .. }, true) => *state = BreakerState::Closed { failures: 0 },
            (BreakerState::Closed { failures }, false) if failures + 1 < FAILURES => {
                *state = BreakerState::Closed { failures: failures + 1 }
            }
            (BreakerState::Closed { .. }, false) => self.enter(&mut state, opened()),
            (BreakerState::HalfOpen, true) if is_probe => self.enter(&mut state, BreakerState::Closed { failures: 0 }),
            (BreakerState::HalfOpen, false) if is_probe => self.enter(&mut state, opened()),
            // Calls that started before the breaker opened do not count: the probe decides.
            (BreakerState::HalfOpen | BreakerState::Open { .. }, _) => {}
        }
    }
}

/// A permitted call, whose outcome must be reported.
#[derive(Debug)]
#[must_use = "report whether the dependency answered"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    recorded: bool,
}

impl Permit<'_> {
    pub fn answered(mut self) {
        self.recorded = true;
        self.breaker.record(self.is_probe, true);
    }

    pub fn failed(mut self) {
        self.recorded = true;
        self.breaker.record(self.is_probe, false);
    }
}

impl Drop for Permit<'_> {
    /// The caller was canceled before the call ended. For a probe that counts as a failure: it must not leave the breaker half-open.
    fn drop(&mut self) {
        if self.is_probe && !self.recorded {
            self.breaker.record(true, false);
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
