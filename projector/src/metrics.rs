//! The metrics of projections. Those of a generation exist from its start, with 0, until it is retired.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use serde::{Deserialize, Serialize};
use service::metrics::{Seconds, seconds_family};

use crate::generations::Generation;

/// How far a generation is behind the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationLag {
    /// Events that were not acknowledged.
    pub events: u64,
    /// Age of the oldest of them.
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProjectionLabels {
    projection: &'static str,
}

/// Labels of what two generations of one projection have each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GenerationLabels {
    pub projection: String,
    pub generation: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    projection: String,
    generation: i32,
    outcome: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    lag_events: Family<GenerationLabels, Gauge>,
    lag_seconds: Family<GenerationLabels, FloatGauge>,
    events: Family<OutcomeLabels, Counter>,
    apply_duration: ApplyDurations,
    retries: Family<GenerationLabels, Counter>,
    held: Family<GenerationLabels, Gauge>,
    dead_letters: Family<ProjectionLabels, Gauge>,
}

#[derive(Debug, Clone)]
struct ApplyDurations(Seconds<GenerationLabels>);

impl Default for ApplyDurations {
    fn default() -> Self {
        Self(seconds_family())
    }
}

impl Metrics {
    /// Registers all families. The dead letters of each of these projections are shown from the start.
    pub fn register(registry: &mut Registry, projections: impl IntoIterator<Item = &'static str>) -> Self {
        let metrics = Self::default();
        for projection in projections {
            metrics.dead_letters.get_or_create_owned(&ProjectionLabels { projection });
        }
        registry.register("projection_lag_events", "Events that the generation has not acknowledged", metrics.lag_events.clone());
        registry.register_with_unit(
            "projection_lag",
            "Age of the oldest event that the generation has not acknowledged",
            Unit::Seconds,
            metrics.lag_seconds.clone(),
        );
        registry.register("projection_events", "Events acknowledged, by outcome", metrics.events.clone());
        registry.register_with_unit(
            "projection_apply_duration",
            "Time to write one batch",
            Unit::Seconds,
            metrics.apply_duration.0.clone(),
        );
        registry.register("projection_retries", "Failed tries that are repeated", metrics.retries.clone());
        registry.register("projection_held", "1 while the generation holds", metrics.held.clone());
        registry.register("dlq_messages", "Dead letters, each counted once", metrics.dead_letters.clone());
        metrics
    }

    /// The series of one generation, all with 0.
    pub fn of(&self, generation: &Generation) -> GenerationMetrics {
        let labels = GenerationLabels { projection: generation.projection.clone(), generation: generation.number };
        let of_outcome = |outcome| self.events.get_or_create_owned(&outcome_labels(&labels, outcome));
        let metrics = GenerationMetrics {
            applied: of_outcome(outcome::APPLIED),
            superseded: of_outcome(outcome::SUPERSEDED),
            poison: of_outcome(outcome::POISON),
            exhausted: of_outcome(outcome::EXHAUSTED),
            skipped: of_outcome(outcome::SKIPPED),
            apply_duration: self.apply_duration.0.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            held: self.held.get_or_create_owned(&labels),
            families: self.clone(),
            labels,
        };
        metrics.set_lag(Some(GenerationLag::default()));
        metrics
    }

    pub fn set_dead_letters(&self, projection: &'static str, letters: usize) {
        let letters = i64::try_from(letters).unwrap_or(i64::MAX);
        self.dead_letters.get_or_create(&ProjectionLabels { projection }).set(letters);
    }
}

/// Values of the label `outcome` of `projection_events_total`.
mod outcome {
    pub const APPLIED: &str = "applied";
    pub const SUPERSEDED: &str = "superseded";
    pub const POISON: &str = "poison";
    pub const EXHAUSTED: &str = "exhausted";
    /// By a generation that does not serve, and is dirty from then on.
    pub const SKIPPED: &str = "skipped";
    pub const ALL: [&str; 5] = [APPLIED, SUPERSEDED, POISON, EXHAUSTED, SKIPPED];
}

fn outcome_labels(labels: &GenerationLabels, outcome: &'static str) -> OutcomeLabels {
    OutcomeLabels { projection: labels.projection.clone(), generation: labels.generation, outcome }
}

/// The series of one generation, looked up once.
#[derive(Debug)]
pub struct GenerationMetrics {
    pub applied: Counter,
    pub superseded: Counter,
    pub poison: Counter,
    pub exhausted: Counter,
    pub skipped: Counter,
    pub apply_duration: Histogram,
    pub retries: Counter,
    held: Gauge,
    families: Metrics,
    labels: GenerationLabels,
}

impl GenerationMetrics {
    pub fn set_held(&self, held: bool) {
        self.held.set(held.into());
    }

    /// A lag that is unknown is not shown.
    pub fn set_lag(&self, lag: Option<GenerationLag>) {
        let Metrics { lag_events, lag_seconds, .. } = &self.families;
        if let Some(lag) = lag {
            lag_events.get_or_create(&self.labels).set(i64::try_from(lag.events).unwrap_or(i64::MAX));
            lag_seconds.get_or_create(&self.labels).set(lag.seconds);
        } else {
            lag_events.remove(&self.labels);
            lag_seconds.remove(&self.labels);
        }
    }

    /// Removes the series of a generation that is retired: the last values would be shown for ever.
    pub fn remove(&self) {
        let Metrics { events, apply_duration, retries, held, .. } = &self.families;
        self.set_lag(None);
        apply_duration.0.remove(&self.labels);
        retries.remove(&self.labels);
        held.remove(&self.labels);
        for outcome in outcome::ALL {
            events.remove(&outcome_labels(&self.labels, outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::generations::GenerationState;

    #[test]
    fn every_series_of_a_generation_is_there_from_its_start_until_it_is_retired() {
        let mut registry = Registry::with_prefix("listings");
        let metrics = Metrics::register(&mut registry, ["listing_search"]);
        let shown = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(shown().contains("listings_dlq_messages{projection=\"listing_search\"} 0"));
        let [first, second] = [1, 2].map(|number| metrics.of(&Generation::new("listing_page", number, GenerationState::Fed)));
        for number in [1, 2] {
            for (series, outcome) in [
                ("projection_lag_events", ""),
                ("projection_lag_seconds", ""),
                ("projection_events_total", ",outcome=\"poison\""),
                ("projection_apply_duration_seconds_count", ""),
                ("projection_retries_total", ""),
                ("projection_held", ""),
            ] {
                let line = format!("listings_{series}{{projection=\"listing_page\",generation=\"{number}\"{outcome}}} 0");
                assert!(shown().contains(&line), "{line} is not in\n{}", shown());
            }
        }
        first.remove();
        assert!(!shown().contains("generation=\"1\"") && shown().contains("generation=\"2\""));
        second.set_lag(None);
        assert!(!shown().contains("listings_projection_lag_events{"));
    }
}
