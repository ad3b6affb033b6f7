//! What is counted of projections. Every series exists from the start, with 0.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use service::metrics::{Seconds, seconds_family};

use crate::{projections::ALL, verdict::Class};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProjection {
    projection: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    projection: &'static str,
    outcome: &'static str,
}

/// What became of an event, in `events_total`.
#[derive(Debug, Clone, Copy)]
pub enum Answered {
    Applied,
    Superseded,
    DeadLetter(Class),
    /// By a generation that does not serve, and is dirty now.
    Skipped,
}

impl Answered {
    const ALL: [Self; 5] =
        [Self::Applied, Self::Superseded, Self::DeadLetter(Class::Poison), Self::DeadLetter(Class::Exhausted), Self::Skipped];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
            Self::DeadLetter(class) => class.as_str(),
            Self::Skipped => "skipped",
        }
    }
}

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone)]
pub struct Metrics {
    lag_events: Family<ByProjection, Gauge>,
    lag_seconds: Family<ByProjection, FloatGauge>,
    events: Family<ByOutcome, Counter>,
    apply_duration: Seconds<ByProjection>,
    retries: Family<ByProjection, Counter>,
    held: Family<ByProjection, Gauge>,
    dead_letters: Family<ByProjection, Gauge>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            lag_events: Family::default(),
            lag_seconds: Family::default(),
            events: Family::default(),
            apply_duration: seconds_family(),
            retries: Family::default(),
            held: Family::default(),
            dead_letters: Family::default(),
        };
        for about in ALL {
            let projection = about.name;
            let label = ByProjection { projection };
            metrics.lag_events.get_or_create_owned(&label);
            metrics.lag_seconds.get_or_create_owned(&label);
            metrics.apply_duration.get_or_create_owned(&label);
            metrics.retries.get_or_create_owned(&label);
            metrics.held.get_or_create_owned(&label);
            metrics.dead_letters.get_or_create_owned(&label);
            for outcome in Answered::ALL {
                metrics.events.get_or_create_owned(&ByOutcome { projection, outcome: outcome.as_str() });
            }
        }
        registry.register(
            "projection_lag_events",
            "Events that the serving generation has not answered",
            metrics.lag_events.clone(),
        );
        registry.register_with_unit(
            "projection_lag",
            "Age of the oldest event that the serving generation has not answered",
            Unit::Seconds,
            metrics.lag_seconds.clone(),
        );
        registry.register("projection_events", "Events answered, by what became of them", metrics.events.clone());
        registry.register_with_unit(
            "projection_apply_duration",
            "Time to write one batch",
            Unit::Seconds,
            metrics.apply_duration.clone(),
        );
        registry.register("projection_retries", "Tries that failed and are repeated", metrics.retries.clone());
        registry.register("projection_held", "1 while the projection has stopped on purpose", metrics.held.clone());
        registry.register("dlq_messages", "Events put aside, each counted once", metrics.dead_letters.clone());
        metrics
    }

    pub fn set_lag(&self, projection: &'static str, events: u64, seconds: f64) {
        self.lag_events.get_or_create(&ByProjection { projection }).set(i64::try_from(events).unwrap_or(i64::MAX));
        self.lag_seconds.get_or_create(&ByProjection { projection }).set(seconds);
    }

    /// While it is not known it is not shown: the last value would say that all is well.
    pub fn forget_lag(&self, projection: &'static str) {
        self.lag_events.remove(&ByProjection { projection });
        self.lag_seconds.remove(&ByProjection { projection });
    }

    pub fn count(&self, projection: &'static str, answered: Answered, events: u64) {
        self.events.get_or_create(&ByOutcome { projection, outcome: answered.as_str() }).inc_by(events);
    }

    pub fn observe_apply(&self, projection: &'static str, took: Duration) {
        self.apply_duration.get_or_create(&ByProjection { projection }).observe(took.as_secs_f64());
    }

    pub fn count_retry(&self, projection: &'static str) {
        self.retries.get_or_create(&ByProjection { projection }).inc();
    }

    pub fn set_held(&self, projection: &'static str, held: bool) {
        self.held.get_or_create(&ByProjection { projection }).set(held.into());
    }

    pub fn set_dead_letters(&self, projection: &'static str, letters: usize) {
        self.dead_letters.get_or_create(&ByProjection { projection }).set(i64::try_from(letters).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let mut registry = Registry::with_prefix("listings");
        Metrics::register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for series in [
            "listings_projection_lag_events{projection=\"stock_levels\"} 0",
            "listings_projection_lag_seconds{projection=\"listing_page\"} 0",
            "listings_projection_events_total{projection=\"listing_search\",outcome=\"poison\"} 0",
            "listings_projection_apply_duration_seconds_count{projection=\"listing_catalog\"} 0",
            "listings_projection_retries_total{projection=\"listing_search\"} 0",
            "listings_projection_held{projection=\"listing_search\"} 0",
            "listings_dlq_messages{projection=\"listing_search\"} 0",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }
}
