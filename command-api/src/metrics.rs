//! What this program counts besides requests: what was done to listings, and how long the database took for it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use service::metrics::{Pool, Queries, register_build_info, register_pools};
use sqlx::PgPool;

use crate::database::Database;

/// Transactions that are timed, by what they are for.
const OPERATIONS: [&str; 9] = [
    "create_listing",
    "create_listing_once",
    "create_batch",
    "replace_listing",
    "patch_listing",
    "change_status",
    "delete_listing",
    "set_stock",
    "record_movement",
];

/// What of requests counts as a failure of ours.
pub const HTTP_ERRORS: [(&str, &str); 3] = [("http", "internal"), ("http", "unavailable"), ("http", "timeout")];

#[derive(Debug, Clone)]
pub struct Metrics {
    pub created: Counter,
    pub updated: Counter,
    pub deleted: Counter,
    pub queries: Queries,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            created: Counter::default(),
            updated: Counter::default(),
            deleted: Counter::default(),
            queries: Queries::register(registry, &OPERATIONS),
        };
        registry.register("created", "Listings created", metrics.created.clone());
        registry.register("updated", "Changes of listings by their sellers", metrics.updated.clone());
        registry.register("deleted", "Listings deleted", metrics.deleted.clone());
        register_build_info(registry, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        metrics
    }
}

pub fn watch_pools(registry: &mut Registry, database: &Database) {
    let watched = |name, pool: &PgPool| {
        let (open, idle) = (pool.clone(), pool.clone());
        Pool::new(name, move || i64::from(open.size()), move || i64::try_from(idle.num_idle()).unwrap_or(i64::MAX))
    };
    register_pools(registry, vec![watched("single", &database.single), watched("batch", &database.batch)]);
}
