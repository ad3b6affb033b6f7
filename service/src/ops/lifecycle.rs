//! Where in its life a program is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Started,
    Draining,
}

/// Shared between those who know (main, the servers) and those who tell (readiness, the HTTP stack).
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

const STARTING: u8 = 0;
const STARTED: u8 = 1;
const DRAINING: u8 = 2;

impl Lifecycle {
    /// Everything that the program does has begun. Does nothing once it drains.
    pub fn started(&self) {
        let _ = self.0.compare_exchange(STARTING, STARTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The program is being stopped; there is no way back.
    pub fn drain(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            STARTING => Phase::Starting,
            STARTED => Phase::Started,
            _ => Phase::Draining,
        }
    }
}
