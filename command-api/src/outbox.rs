//! Tells the relay that there is something to publish.
//!
//! The rows themselves are written by [`crate::journal`], in the command's own transaction. Being woken only saves the wait
//! for the next poll: a process that dies between commit and wake loses nothing.

use tokio::sync::watch;

/// The bell between commands and relay.
#[derive(Debug, Clone)]
pub struct Wake(watch::Sender<()>);

impl Default for Wake {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Wake {
    /// Something was committed.
    pub fn ring(&self) {
        self.0.send_replace(());
    }

    /// For each who waits for it. What was rung since the last look is not lost.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}
