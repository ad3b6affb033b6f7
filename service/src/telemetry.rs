//! Logs and traces: one JSON object a line, each with the ids of the trace that it belongs to.
//!
//! Trace ids are there whether or not traces are exported: problems show them, and events carry them on to other programs.

mod json;
mod panic;
mod trace;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use trace::{add_link, current_trace_id, current_traceparent, set_parent};

use crate::settings::{LogArgs, LogFormat};

/// Flushes the traces that are still on their way.
#[derive(Debug)]
#[must_use = "traces that were not flushed are lost"]
pub struct TelemetryGuard {
    provider: SdkTracerProvider,
}

impl TelemetryGuard {
    /// Call it after the servers have stopped. It never fails a stop: a collector that is away costs traces, nothing else.
    pub async fn shutdown(self) {
        // Shutting down blocks its thread until the exporter has answered or given up.
        let flushed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(trace::FLUSH_WITHIN)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(error = %error, "The last traces were not exported: {error}");
        }
    }
}

/// Starts logs on stdout, and traces, for a program that serves. Must be called within the runtime.
pub fn init(service_name: &'static str, log: &LogArgs) -> anyhow::Result<TelemetryGuard> {
    let filter = EnvFilter::try_new(&log.rust_log).context("RUST_LOG cannot be read")?;
    let provider = trace::provider(service_name, log)?;
    let subscriber = subscriber(&provider, service_name, log, filter, std::io::stdout, std::io::stdout().is_terminal());
    subscriber.try_init().context("logs were started twice")?;
    panic::log_panics();
    Ok(TelemetryGuard { provider })
}

fn subscriber<W>(
    provider: &SdkTracerProvider,
    service_name: &'static str,
    log: &LogArgs,
    filter: EnvFilter,
    to: W,
    terminal: bool,
) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let exported = log.otlp_endpoint().is_some();
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service_name)).with_filter(trace::filter(exported));
    // The trace layer comes first: a log line shows the ids that it has made.
    tracing_subscriber::registry().with(traces).with(lines(log.log_format, to, terminal).with_filter(filter))
}

/// Starts logs on stderr, without traces, for a subcommand whose stdout is its result.
pub fn init_tool(log: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.rust_log).context("RUST_LOG cannot be read")?;
    let lines = lines(log.log_format, std::io::stderr, std::io::stderr().is_terminal()).with_filter(filter);
    tracing_subscriber::registry().with(lines).try_init().context("logs were started twice")
}

fn lines<S, W>(format: LogFormat, to: W, terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    match format {
        LogFormat::Json => fmt::layer().event_format(json::JsonLines).with_writer(to).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(terminal).with_writer(to).boxed(),
    }
}
