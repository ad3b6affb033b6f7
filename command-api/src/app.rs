//! What every command uses besides its input.

use service::clock::Clock;

use crate::database::Database;
use crate::metrics::Metrics;
use crate::outbox::Wake;

#[derive(Debug, Clone)]
pub struct App {
    pub database: Database,
    pub clock: Clock,
    /// Wakes the relay after each commit.
    pub wake: Wake,
    pub metrics: Metrics,
}
