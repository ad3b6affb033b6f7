//! Trace ids: made or taken from a request, passed on to other programs, and exported with spans.

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

/// Timeout of the last export during a stop.
pub(super) const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// Timeout of one export.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// The W3C header with the ids of a trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// With an endpoint, spans are exported by the sampler that `OTEL_TRACES_SAMPLER` names. Without one, spans have ids and are not
/// sampled, but the sampled flag of a request is passed on.
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

/// Whether traces are exported. If not, only the ids of a span are used, and its fields need not be recorded.
#[must_use]
pub fn are_traces_exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// The ids of the current span.
pub(super) fn current() -> Option<SpanContext> {
    // Called while a line is being logged, when the subscriber cannot be used.
    Context::map_current(|context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid))
}

/// The id of the current trace, as problems and log lines show it.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    current().map(|ids| ids.trace_id().to_string())
}

/// The ids of the current span in W3C form, to be sent with a request or an event.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    current().map(|ids| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8()))
}

/// Makes the span a child of `traceparent`. Call it before the span is entered; later it has no effect. If the header is missing or
/// cannot be read, the span begins a trace of its own.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It fails only if no subscriber is set.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The trace context of one request: a span, or only its ids.
pub(crate) enum RequestTrace {
    Span(Span),
    /// The ids that a span would have, for when traces are not exported. It costs a tenth of a span.
    Ids(Context),
}

impl RequestTrace {
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

    /// Runs `part` with this trace as the current one.
    pub fn in_scope<T>(&self, part: impl FnOnce() -> T) -> T {
        match self {
            Self::Span(span) => span.in_scope(part),
            Self::Ids(context) => {
                let _attached = context.clone().attach();
                part()
            }
        }
    }
}

/// Links the span to another trace, for work that several events caused together.
pub fn add_link(span: &Span, traceparent: Option<&str>) {
    if let Some(cause) = traceparent.and_then(parse) {
        span.add_link(cause);
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceparentCarrier(traceparent));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

struct TraceparentCarrier<'a>(&'a str);

impl Extractor for TraceparentCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (TRACEPARENT == key).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}
