//! The metrics of query-api.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use service::http::HttpMetrics;
use service::metrics::{Errors, Queries, register_build_info};

use crate::breaker::Breaker;
use crate::database::POSTGRES;
use crate::opensearch::OPENSEARCH;
use crate::page_cache::CacheLookups;
use crate::redis_pages::REDIS;

/// The prefix of all metrics.
pub const PREFIX: &str = "listings";

/// The names of statements.
const OPERATIONS: [&str; 7] =
    ["get_listing", "get_stock", "list_listings", "search", "search_count", "consistency", "generations"];
/// How a call of a dependency can fail.
const FAILURES: [&str; 3] = ["failed", "refused", "timeout"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: &'static str,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    pub http: HttpMetrics,
    pub errors: Errors,
    pub queries: Queries,
    /// Pages cached in this process.
    pub local: CacheLookups,
    /// Pages in Redis.
    pub redis: CacheLookups,
    /// Answers of searches cached in this process.
    pub answers: CacheLookups,
    /// Searches answered.
    pub searched: Counter,
    breakers: Family<DependencyLabels, Gauge>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        register_build_info(registry, "query-api", env!("CARGO_PKG_VERSION"));
        let failures = [OPENSEARCH, POSTGRES, REDIS].map(|store| FAILURES.map(|failure| (store, failure)));
        let (hits, misses) = (Family::<CacheLabels, Counter>::default(), Family::<CacheLabels, Counter>::default());
        let lookups = |cache_type| CacheLookups {
            hits: hits.get_or_create_owned(&CacheLabels { cache_type }),
            misses: misses.get_or_create_owned(&CacheLabels { cache_type }),
        };
        let metrics = Self {
            http: HttpMetrics::register(registry),
            errors: Errors::register(registry, failures.as_flattened()),
            queries: Queries::register(registry, &OPERATIONS),
            local: lookups("local"),
            redis: lookups("redis"),
            answers: lookups("search"),
            searched: Counter::default(),
            breakers: Family::default(),
        };
        registry.register("cache_hits", "Pages, stock levels and searches found in a cache", hits);
        registry.register("cache_misses", "Pages, stock levels and searches not found in a cache", misses);
        registry.register("searched", "Searches answered", metrics.searched.clone());
        registry.register(
            "circuit_breaker_state",
            "State of a dependency's circuit breaker: 0 closed, 1 half-open, 2 open",
            metrics.breakers.clone(),
        );
        metrics
    }

    /// Creates the breaker of a dependency, with its gauge.
    pub fn breaker(&self, dependency: &'static str) -> Breaker {
        Breaker::new(dependency, self.breakers.get_or_create_owned(&DependencyLabels { dependency }))
    }
}
