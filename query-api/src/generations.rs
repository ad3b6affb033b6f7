//! Which generation of each projection is serving, as `projection.generations` says (PROTOCOL G1).

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::database::Database;

/// A switch of generations is seen within this time.
const REFRESH: Duration = Duration::from_secs(1);

/// The pointers as last read. They outlive Postgres: pages go on being read while it is away. Before the first reading the
/// first generation is taken, which every installation begins with.
#[derive(Debug)]
pub struct Generations {
    listing_page: AtomicI32,
}

impl Default for Generations {
    fn default() -> Self {
        Self { listing_page: AtomicI32::new(1) }
    }
}

impl Generations {
    /// The generation of pages and stock levels in Redis.
    #[must_use]
    pub fn listing_page(&self) -> i32 {
        self.listing_page.load(Ordering::Relaxed)
    }

    /// Reads them again and again until told to stop.
    pub async fn follow(&self, database: &Database, stop: CancellationToken) -> anyhow::Result<()> {
        let mut pace = tokio::time::interval(REFRESH);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(pace.tick()).await.is_some() {
            let statement = sqlx::query_scalar!(
                "select generation from projection.generations where projection = 'listing_page' and state = 'serving'"
            );
            match database.ask("generations", statement.fetch_optional(&database.pool)).await {
                Ok(Some(serving)) => {
                    if self.listing_page.swap(serving, Ordering::Relaxed) != serving {
                        info!(
                            projection.name = "listing_page",
                            generation = serving,
                            "Pages are now read from generation {serving}"
                        );
                    }
                }
                Ok(None) => debug!("No generation of listing_page is serving; the last one stays"),
                Err(error) => debug!(error = %error, "Generations could not be read: {error}"),
            }
        }
        Ok(())
    }
}
