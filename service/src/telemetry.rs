//! Logs and traces. A log line is one JSON object with the ids of its trace.
//!
//! Trace ids exist whether or not traces are exported: problems show them, and events carry them to other programs.

mod filter;
mod json;
mod trace;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::panic;

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

pub(crate) use trace::RequestTrace;
pub use trace::{TRACEPARENT, add_link, are_traces_exported, current_trace_id, current_traceparent, set_parent};

use crate::settings::{LogArgs, LogFormat};

/// Exports the remaining traces at the end of the program.
#[derive(Debug)]
#[must_use = "traces that were not flushed are lost"]
pub struct TelemetryGuard {
    provider: SdkTracerProvider,
}

impl TelemetryGuard {
    /// Call it after the servers have stopped. If the collector is down, the remaining traces are lost and a warning is logged.
    pub async fn shutdown(self) {
        // The shutdown blocks its thread until the exporter has answered or given up.
        let flushed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(trace::FLUSH_WITHIN)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(error = %error, "The last traces were not exported: {error}");
        }
    }
}

/// Starts logs on stdout, and traces, for a program that serves. Must be called within the Tokio runtime.
pub fn init(service_name: &'static str, log: &LogArgs) -> anyhow::Result<TelemetryGuard> {
    let provider = trace::provider(service_name, log)?;
    let subscriber = subscriber(&provider, service_name, log, std::io::stdout, std::io::stdout().is_terminal())?;
    subscriber.try_init().context("logs were started twice")?;
    log_panics();
    Ok(TelemetryGuard { provider })
}

/// Starts logs on stderr, without traces, for a subcommand whose stdout is its result.
pub fn init_tool(log: &LogArgs) -> anyhow::Result<()> {
    let lines = lines(log.log_format, std::io::stderr, std::io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(filter::Wanted { lines: log_filter(log)? }).with(lines);
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
    // Each of these costs time per span, and we have no use for it.
    let traces = tracing_opentelemetry::layer().with_location(false).with_threads(false).with_tracked_inactivity(false);
    let traces = traces.with_tracer(provider.tracer(service_name));
    // The trace layer comes first, because log lines show the ids that it makes.
    Ok(tracing_subscriber::registry().with(filter::Wanted { lines: log_filter(log)? }).with(traces).with(lines(
        log.log_format,
        to,
        terminal,
    )))
}

/// From now on a panic is one log line, in the format of all others, with the ids of its trace.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a value that is not text");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.location = location, panic.message = message, "Panicked at {location}: {message}");
    }));
}

fn log_filter(log: &LogArgs) -> anyhow::Result<Targets> {
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
