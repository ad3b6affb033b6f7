//! Where in its life a program is.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Started,
    Draining,
}

/// Shared between those who know (main, the servers) and those who tell (readiness, the HTTP stack).
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    stop: OnceLock<CancellationToken>,
}

const STARTING: u8 = 0;
const STARTED: u8 = 1;
const DRAINING: u8 = 2;

impl Lifecycle {
    /// Everything that the program does has begun. Does nothing once it drains.
    pub fn started(&self) {
        let _ = self.0.phase.compare_exchange(STARTING, STARTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The program is being stopped; there is no way back.
    pub fn drain(&self) {
        self.0.phase.store(DRAINING, Ordering::Release);
    }

    /// Draining from the moment at which the program is told to stop. The first token counts.
    pub fn follow(&self, stop: &CancellationToken) {
        let _ = self.0.stop.set(stop.clone());
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.0.stop.get().is_some_and(CancellationToken::is_cancelled) {
            return Phase::Draining;
        }
        match self.0.phase.load(Ordering::Acquire) {
            STARTING => Phase::Starting,
            STARTED => Phase::Started,
            _ => Phase::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_is_followed_means_draining() {
        let (lifecycle, stop) = (Lifecycle::default(), CancellationToken::new());
        lifecycle.follow(&stop);
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.started();
        assert_eq!(lifecycle.phase(), Phase::Started);
        stop.cancel();
        assert!(lifecycle.clone().is_draining());
        lifecycle.started();
        assert!(lifecycle.is_draining());
    }
}
