//! What is logged and what is traced, judged by where it comes from alone.
//!
//! Not by filters of tracing-subscriber on each layer: those remember, by thread, what they said when a library only asks
//! whether something would be logged, and a span made next has no trace (met with sqlx, which asks for every query).

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What the exporter of traces itself uses: tracing it would make each export cause the next.
const EXPORTERS_OWN: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// What is wanted at all: the log lines that `RUST_LOG` asks for, and the spans that make a trace, whatever it asks for. A
/// quiet log must not take away the ids.
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

/// A layer that is only told of events: lines that do not show spans need not format them.
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
