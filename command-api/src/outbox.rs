//! Wakes the relay after a commit.
//!
//! The outbox rows are written by [`crate::journal`], in the command's own transaction. A wake-up only saves the wait for the next
//! poll: a process that dies between commit and wake-up loses nothing.

use tokio::sync::watch;

/// The wake-up signal from the commands to the relay of the same process.
#[derive(Debug, Clone)]
pub struct Wake(watch::Sender<()>);

impl Default for Wake {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Wake {
    /// Signals that events were committed.
    pub fn ring(&self) {
        self.0.send_replace(());
    }

    /// Returns a receiver of the signal. A signal sent since the receiver last waited is not lost.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}
