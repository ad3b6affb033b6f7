//! The metrics that all programs have: errors, durations of database work, connection pools, the version.
//!
//! The program creates the registry with its prefix; prometheus-client adds `_total`, `_info` and the unit. A series whose labels are
//! known in advance is created at the start, so that it shows 0 before the first event.

mod pool;

use std::hash::Hash;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use pool::{Pool, register_pools};

/// Histogram buckets, from a hit in the process's own cache (under a millisecond) to the longest deadline (20 s).
const SECONDS: [f64; 15] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// Histograms of durations by label, all with the same buckets.
pub type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

#[must_use]
pub fn seconds_family<L: Clone + Hash + Eq>() -> Seconds<L> {
    Family::new_with_constructor(seconds)
}

/// A histogram of durations.
#[must_use]
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    component: &'static str,
    error_type: &'static str,
}

/// `errors_total{component,error_type}`: failures on our side. Refused requests are not counted here.
#[derive(Debug, Clone)]
pub struct Errors(Family<ErrorLabels, Counter>);

impl Errors {
    /// `known` are the pairs of component and type that show 0 from the start.
    pub fn register(registry: &mut Registry, known: &[(&'static str, &'static str)]) -> Self {
        let errors = Self(Family::default());
        for &(component, error_type) in known {
            errors.0.get_or_create_owned(&ErrorLabels { component, error_type });
        }
        registry.register("errors", "Failures, by where they were met and what they were", errors.0.clone());
        errors
    }

    pub fn count(&self, component: &'static str, error_type: &'static str) {
        self.0.get_or_create(&ErrorLabels { component, error_type }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    operation: &'static str,
}

/// `db_query_duration_seconds{operation}`.
#[derive(Debug, Clone)]
pub struct Queries(Seconds<QueryLabels>);

impl Queries {
    pub fn register(registry: &mut Registry, known: &[&'static str]) -> Self {
        let queries = Self(seconds_family());
        for &operation in known {
            queries.0.get_or_create_owned(&QueryLabels { operation });
        }
        registry.register_with_unit("db_query_duration", "Database work, by what it is for", Unit::Seconds, queries.0.clone());
        queries
    }

    /// Runs the work and records its duration. Work that is cancelled is not recorded.
    ///
    /// The work is boxed: a statement's future has tens of kilobytes, which every layer above would otherwise move.
    pub fn time<T>(&self, operation: &'static str, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let work = Box::pin(work);
        async move {
            let started = Instant::now();
            let outcome = work.await;
            self.0.get_or_create(&QueryLabels { operation }).observe(started.elapsed().as_secs_f64());
            outcome
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    program: &'static str,
    version: &'static str,
}

/// `build_info{program,version}`.
pub fn register_build_info(registry: &mut Registry, program: &'static str, version: &'static str) {
    registry.register("build", "The program and its version", Info::new(BuildLabels { program, version }));
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[tokio::test]
    async fn names_and_units_are_those_of_the_contract() {
        let mut registry = Registry::with_prefix("listings");
        let errors = Errors::register(&mut registry, &[("relay", "refused")]);
        let queries = Queries::register(&mut registry, &[]);
        register_build_info(&mut registry, "projector", "1.2.3");
        register_pools(&mut registry, vec![Pool::new("main", || 5, || 3)]);

        let before = shown(&registry);
        assert!(before.contains("listings_errors_total{component=\"relay\",error_type=\"refused\"} 0"), "{before}");
        assert!(before.contains("listings_build_info{program=\"projector\",version=\"1.2.3\"} 1"), "{before}");
        assert!(before.contains("listings_db_connections_open{pool=\"main\"} 5"), "{before}");
        assert!(before.contains("listings_db_connections_idle{pool=\"main\"} 3"), "{before}");

        errors.count("relay", "refused");
        assert_eq!(queries.time("load", async { 7 }).await, 7);
        let after = shown(&registry);
        assert!(after.contains("listings_errors_total{component=\"relay\",error_type=\"refused\"} 1"), "{after}");
        assert!(after.contains("listings_db_query_duration_seconds_count{operation=\"load\"} 1"), "{after}");
        assert!(after.ends_with("# EOF\n"), "{after}");
    }
}
