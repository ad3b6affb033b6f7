//! `command-api serve`: the parts of the process, and how they are connected.

use prometheus_client::registry::Registry;
use serde_json::json;
use service::clock::Clock;
use service::http::HttpMetrics;
use service::metrics::Errors;
use service::ops::{Check, Ops, Report};
use service::postgres::{self, ReadinessConnection};
use service::program::Program;

use crate::cli::Serve;
use crate::command::CommandApp;
use crate::database::CommandDatabase;
use crate::http;
use crate::idempotency;
use crate::metrics::{self, CommandMetrics};
use crate::outbox::Wake;
use crate::relay::{self, Relay};

/// Starts telemetry, connects, runs until stopped, then drains.
pub async fn serve(settings: Serve) -> anyhow::Result<()> {
    let mut program = Program::start("command-api", &settings.log)?;
    let nats_urls = settings.nats_urls()?;
    let signer = settings.jwt.signing.signer(Clock::System)?;
    let verifier = settings.jwt.verifier(signer.as_ref(), Clock::System)?;

    let mut registry = Registry::with_prefix("listings");
    let options = postgres::options("DATABASE_URL", settings.database.expose())?.application_name("command-api");
    let database = CommandDatabase::new(&options, settings.database_max_connections);
    let connection = ReadinessConnection::new(&options);
    metrics::watch_pools(&mut registry, &database);
    let app = CommandApp {
        database: database.clone(),
        clock: Clock::System,
        wake: Wake::default(),
        metrics: CommandMetrics::register(&mut registry, &http::operations()),
    };
    let errors = Errors::register(&mut registry, &metrics::HTTP_ERRORS);
    let http_metrics = HttpMetrics::register(&mut registry).with_errors(errors);
    let relay = nats_urls.map(|nats_urls| Relay {
        database: options,
        nats_urls,
        wake: app.wake.listen(),
        status: relay::RelayStatus::default(),
        metrics: relay::RelayMetrics::register(&mut registry),
    });

    let relay_status = relay.as_ref().map(|relay| relay.status.clone());
    let shown = relay_status.clone();
    let checked = connection.clone();
    let ops = Ops::new(
        registry,
        &program.lifecycle,
        move || readiness(checked.clone(), relay_status.clone()),
        move || std::future::ready(json!({ "relay": shown.as_ref().map(relay::RelayStatus::to_json) })),
    );
    program.open_ops(settings.ops.ops_addr, ops).await?;

    let routes = http::routes(app, verifier, signer.map(|signer| signer.jwks()), http_metrics, program.lifecycle.clone());
    let answered = program.serve_http(settings.http.http_addr, routes).await?;
    if let Some(relay) = relay {
        // It stops after the last request was answered, so that the events of that request are published too.
        program.spawn("relay", relay::run(relay, answered));
    }
    program.spawn("idempotency", idempotency::forget_expired(database.single.clone(), program.stop.clone()));
    program.lifecycle.started();
    let close = async {
        connection.close().await;
        database.close().await;
    };
    program.until_stopped(close).await
}

/// Ready means that Postgres answers. A failure of the relay delays events but fails no command, so that its checks are optional.
async fn readiness(connection: ReadinessConnection, relay: Option<relay::RelayStatus>) -> Report {
    let mut checks = vec![Check::of_store("postgres", connection.ping()).await];
    checks.extend(relay.iter().flat_map(relay::RelayStatus::checks));
    Report::of(checks)
}
