//! Which generation of each projection is served (PROTOCOL G1). All reads of a projection take it from here.
//!
//! The pointers are read once per second from Postgres, or from their copy in Redis while Postgres does not answer. If neither
//! answers, the last known ones stay. A list or a search takes its pointer once and uses it to its end, so it never mixes two
//! generations.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use views::generations::ServingGenerations;
use views::{listing_catalog, listing_page, stock_levels};

use crate::database::Database;
use crate::redis_pages::RedisPages;
use crate::store_guard::StoreError;

/// How often the pointers are read: a switch takes effect within this time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The generation that every installation starts with. It is assumed until a store has answered.
const FIRST: i32 = 1;

/// The serving generations as last read. `listing_search` is not among them: OpenSearch's alias points to its serving generation.
#[derive(Debug)]
pub struct Generations {
    listing_page: AtomicI32,
    listing_catalog: AtomicI32,
    stock_levels: AtomicI32,
}

impl Default for Generations {
    fn default() -> Self {
        let first = || AtomicI32::new(FIRST);
        Self { listing_page: first(), listing_catalog: first(), stock_levels: first() }
    }
}

impl Generations {
    /// The serving generation of pages in Redis.
    pub fn listing_page(&self) -> i32 {
        self.listing_page.load(Ordering::Relaxed)
    }

    /// The serving generation of `projection.listings`.
    pub fn listing_catalog(&self) -> i32 {
        self.listing_catalog.load(Ordering::Relaxed)
    }

    /// The serving generation of `projection.stock_levels`.
    pub fn stock_levels(&self) -> i32 {
        self.stock_levels.load(Ordering::Relaxed)
    }

    /// The pointers, for operators.
    pub fn status(&self) -> ServingGenerations {
        let pointers = [
            (listing_page::NAME, self.listing_page()),
            (listing_catalog::NAME, self.listing_catalog()),
            (stock_levels::NAME, self.stock_levels()),
        ];
        pointers.into_iter().collect()
    }

    /// Refreshes the pointers every [`REFRESH_INTERVAL`] until `stop`.
    pub async fn follow(&self, database: &Database, redis: &RedisPages, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.refresh(database, redis).await;
        }
        Ok(())
    }

    /// Reads the pointers once. Call it before the first query: after a switch the first generation may no longer exist.
    pub async fn refresh(&self, database: &Database, redis: &RedisPages) {
        let serving = match from_postgres(database).await {
            Ok(serving) => serving,
            Err(error) => match redis.serving_generations().await {
                Ok(Some(serving)) => serving,
                Ok(None) | Err(_) => return debug!(error = %error, "Could not read the serving generations: {error}"),
            },
        };
        self.switch_to(&serving);
    }

    fn switch_to(&self, serving: &ServingGenerations) {
        for (name, pointer) in [
            (listing_page::NAME, &self.listing_page),
            (listing_catalog::NAME, &self.listing_catalog),
            (stock_levels::NAME, &self.stock_levels),
        ] {
            // A projection without a serving generation keeps the last one.
            let Some(generation) = serving.of(name) else { continue };
            if pointer.swap(generation, Ordering::Relaxed) != generation {
                info!(projection.name = name, generation, "Switched {name} to generation {generation}");
            }
        }
    }
}

async fn from_postgres(database: &Database) -> Result<ServingGenerations, StoreError> {
    let statement = sqlx::query!("select projection, generation from projection.generations where state = 'serving'");
    let rows = database.call("generations", statement.fetch_all(&database.pool)).await?;
    Ok(rows.into_iter().map(|row| (row.projection, row.generation)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_of_one_projection_leaves_the_others() {
        let generations = Generations::default();
        generations.switch_to(&[(listing_page::NAME, 3), ("listing_search", 9)].into_iter().collect());
        assert_eq!((generations.listing_page(), generations.listing_catalog(), generations.stock_levels()), (3, FIRST, FIRST));
        generations.switch_to(&[(listing_catalog::NAME, 2), (stock_levels::NAME, 4)].into_iter().collect());
        assert_eq!((generations.listing_page(), generations.listing_catalog(), generations.stock_levels()), (3, 2, 4));
    }
}
