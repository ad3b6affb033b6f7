//! Logs and traces: one JSON object a line, each with the ids of the trace that it belongs to.
//!
//! Trace ids are there whether or not traces are exported: problems show them, and events carry them on to other programs.

mod filter;
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
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};

pub(crate) use trace::Trail;
pub use trace::{TRACEPARENT, add_link, are_traces_exported, current_trace_id, current_traceparent, set_parent};

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
    let provider = trace::provider(service_name, log)?;
    let subscriber = subscriber(&provider, service_name, log, std::io::stdout, std::io::stdout().is_terminal())?;
    subscriber.try_init().context("logs were started twice")?;
    panic::log_panics();
    Ok(TelemetryGuard { provider })
}

/// Starts logs on stderr, without traces, for a subcommand whose stdout is its result.
pub fn init_tool(log: &LogArgs) -> anyhow::Result<()> {
    let lines = lines(log.log_format, std::io::stderr, std::io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(filter::Wanted { lines: shown(log)? }).with(lines);
    subscriber.try_init().context("logs were started twice")
}

fn subscriber<W>(
    provider: &SdkTracerProvider,
    service_name: &'static str,
    log: &LogArgs,
    to: W,
    terminal: bool,
) -> anyhow::Result<impl Subscriber + Send + Sync + use<W>>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // Each of these costs something per span, and nobody looks for it there.
    let traces = tracing_opentelemetry::layer().with_location(false).with_threads(false).with_tracked_inactivity(false);
    let traces = traces.with_tracer(provider.tracer(service_name));
    // The trace layer comes first: a log line shows the ids that it has made.
    Ok(tracing_subscriber::registry().with(filter::Wanted { lines: shown(log)? }).with(traces).with(lines(
        log.log_format,
        to,
        terminal,
    )))
}

fn shown(log: &LogArgs) -> anyhow::Result<Targets> {
    log.rust_log.parse().context("RUST_LOG cannot be read")
}

fn lines<S, W>(format: LogFormat, to: W, terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    match format {
        LogFormat::Json => filter::EventsOnly(fmt::layer().event_format(json::JsonLines).with_writer(to)).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(terminal).with_writer(to).boxed(),
    }
}
