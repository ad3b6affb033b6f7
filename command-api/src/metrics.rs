//! The metrics of commands: what was done to listings, and how long the database took for it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use service::metrics::{Pool, Queries, register_build_info, register_pools};
use sqlx::PgPool;

use crate::database::CommandDatabase;

/// The kinds of problems that count as errors of this program.
pub const HTTP_ERRORS: [(&str, &str); 3] = [("http", "internal"), ("http", "unavailable"), ("http", "timeout")];

#[derive(Debug, Clone)]
pub struct CommandMetrics {
    pub created: Counter,
    pub updated: Counter,
    pub deleted: Counter,
    pub queries: Queries,
}

impl CommandMetrics {
    /// `operations` are the names of the transactions that are timed.
    pub fn register(registry: &mut Registry, operations: &[&'static str]) -> Self {
        let metrics = Self {
            created: Counter::default(),
            updated: Counter::default(),
            deleted: Counter::default(),
            queries: Queries::register(registry, operations),
        };
        registry.register("created", "Listings created", metrics.created.clone());
        registry.register("updated", "Changes of listings by their sellers", metrics.updated.clone());
        registry.register("deleted", "Listings deleted", metrics.deleted.clone());
        register_build_info(registry, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        metrics
    }
}

pub fn watch_pools(registry: &mut Registry, database: &CommandDatabase) {
    let watched = |name, pool: &PgPool| {
        let (open, idle) = (pool.clone(), pool.clone());
        Pool::new(name, move || i64::from(open.size()), move || i64::try_from(idle.num_idle()).unwrap_or(i64::MAX))
    };
    register_pools(registry, vec![watched("single", &database.single), watched("batch", &database.batch)]);
}
