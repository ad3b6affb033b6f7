//! Traces: how their ids come about, are handed on, and leave the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::HeaderName;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry::{Context, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, Sampler, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::settings::LogArgs;

/// A stop should not wait longer than this for a collector.
pub(super) const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// A collector that does not take a batch within this time is away.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// The W3C header that a trace is carried on with.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// With an endpoint spans are exported, by the sampler that `OTEL_TRACES_SAMPLER` names. Without, spans have ids all the
/// same and are never marked as sampled by us, but a caller's mark is handed on.
pub(super) fn provider(service_name: &'static str, log: &LogArgs) -> anyhow::Result<SdkTracerProvider> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let name = log.otel_service_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| service_name.to_owned());
    let provider = SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(name).build());
    let Some(endpoint) = log.otlp_endpoint() else {
        return Ok(provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))).build());
    };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_WITHIN).build();
    let exporter = exporter.context("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used")?;
    EXPORTED.store(true, Ordering::Relaxed);
    Ok(provider.with_batch_exporter(exporter).build())
}

/// Whether spans leave the process.
static EXPORTED: AtomicBool = AtomicBool::new(false);

/// Whether anyone collects traces: otherwise what a span says of itself, but for its ids, is seen by nobody.
#[must_use]
pub fn are_traces_exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// The ids of what is being done.
pub(super) fn current() -> Option<SpanContext> {
    // Asked in the middle of logging, where the subscriber itself cannot be asked.
    Context::map_current(|context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid))
}

/// The trace that is running, as problems and log lines show it.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    current().map(|ids| ids.trace_id().to_string())
}

/// What is being done, in W3C form, to be handed on with a request or an event.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    current().map(|ids| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8()))
}

/// Makes the span a part of the trace it was caused by. It has no effect on a span that was already entered; what cannot be
/// read is as good as nothing, and the span begins a trace of its own.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It fails only if nobody listens to the span.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// What the parts of one piece of work have in common: the trace that they belong to.
pub(crate) enum Trail {
    Span(Span),
    /// Nobody collects traces: the ids that a span would have, at a tenth of what a span costs.
    Ids(Context),
}

impl Trail {
    pub fn ids(traceparent: Option<&str>) -> Self {
        let ids = RandomIdGenerator::default();
        let ids = match traceparent.and_then(parse) {
            Some(cause) => {
                SpanContext::new(cause.trace_id(), ids.new_span_id(), cause.trace_flags(), false, cause.trace_state().clone())
            }
            None => SpanContext::new(ids.new_trace_id(), ids.new_span_id(), TraceFlags::default(), false, TraceState::default()),
        };
        Self::Ids(Context::new().with_remote_span_context(ids))
    }

    /// Does a part of the work.
    pub fn follow<T>(&self, part: impl FnOnce() -> T) -> T {
        match self {
            Self::Span(span) => span.in_scope(part),
            Self::Ids(context) => {
                let _followed = context.clone().attach();
                part()
            }
        }
    }
}

/// Makes one more cause of the span known, for work that several events caused together.
pub fn add_link(span: &Span, traceparent: Option<&str>) {
    if let Some(cause) = traceparent.and_then(parse) {
        span.add_link(cause);
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(traceparent));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (TRACEPARENT == key).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}
