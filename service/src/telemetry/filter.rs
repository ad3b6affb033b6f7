//! Decides what is logged and what is traced, by target and level alone.
//!
//! The per-layer filters of tracing-subscriber are not used: they store their last decision per thread. When a library only asks
//! whether an event would be logged, as sqlx does for every query, the next span gets no trace.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Crates that the trace exporter uses. If they were traced, each export would cause the next one.
const EXPORTERS_OWN: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// Enables the log lines that `RUST_LOG` selects, and all spans of level INFO: trace ids must not depend on the log level.
pub(super) struct Wanted {
    pub lines: Targets,
}

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            let origin = metadata.target().split("::").next().unwrap_or_default();
            *metadata.level() <= Level::INFO && !EXPORTERS_OWN.contains(&origin) && !origin.starts_with("opentelemetry")
        } else {
            self.lines.would_enable(metadata.target(), metadata.level())
        }
    }
}

impl<S: Subscriber> Layer<S> for Wanted {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let lines = Layer::<S>::max_level_hint(&self.lines).unwrap_or(LevelFilter::TRACE);
        Some(lines.max(LevelFilter::INFO))
    }
}

/// A layer that gets events only. JSON lines do not show spans, so that spans need not be formatted.
pub(super) struct EventsOnly<L>(pub L);

impl<S, L> Layer<S> for EventsOnly<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.on_event(event, context);
    }
}
