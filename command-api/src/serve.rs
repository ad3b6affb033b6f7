//! The process that answers: its parts, and how they hang together.

use prometheus_client::registry::Registry;
use serde_json::json;
use service::clock::Clock;
use service::http::HttpMetrics;
use service::metrics::Errors;
use service::ops::{self, Check, Ops, Report};
use service::postgres;
use service::run::{self, GRACE, Tasks};
use service::serve::Drain;
use service::telemetry;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::Serve;
use crate::database::Database;
use crate::http;
use crate::idempotency;
use crate::metrics::{self, Metrics};
use crate::outbox::Wake;
use crate::relay::{self, Relay};

/// Telemetry → dependencies → run → drain.
pub async fn serve(settings: Serve) -> anyhow::Result<()> {
    let telemetry = telemetry::init("command-api", &settings.log)?;
    let nats_urls = settings.nats_urls()?;
    let signer = settings.jwt.signing.signer(Clock::System)?;
    let verifier = settings.jwt.verifier(signer.as_ref(), Clock::System)?;
    let stop = run::stop_on_signal()?;

    let mut registry = Registry::with_prefix("listings");
    let options = postgres::options("DATABASE_URL", settings.database.expose())?.application_name("command-api");
    let database = Database::new(&options, settings.database_max_connections);
    metrics::watch_pools(&mut registry, &database);
    let app = App {
        database: database.clone(),
        clock: Clock::System,
        wake: Wake::default(),
        metrics: Metrics::register(&mut registry),
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

    let seen = relay.as_ref().map(|relay| relay.status.clone());
    let told = seen.clone();
    let ready = database.clone();
    let ops = Ops::new(
        registry,
        move || readiness(ready.clone(), seen.clone()),
        move || std::future::ready(json!({ "relay": told.as_ref().map(relay::RelayStatus::to_json) })),
    );
    let lifecycle = ops.lifecycle();
    lifecycle.follow(&stop);
    let routes = http::routes(app, verifier, signer.map(|signer| signer.jwks()), http_metrics, lifecycle.clone());

    let ops_listener = ops::bind(settings.ops.ops_addr).await?;
    let http_listener = service::serve::bind("HTTP_ADDR", settings.http.http_addr).await?;
    let mut tasks = Tasks::new();
    // The relay stops once nothing is committed any more: what the last requests did is still published.
    let answered = CancellationToken::new();
    let answering = service::serve::serve(http_listener, routes, lifecycle.clone(), Drain::default(), stop.clone());
    let all_answered = answered.clone().drop_guard();
    tasks.spawn("http", async move {
        let _all_answered = all_answered;
        answering.await
    });
    if let Some(relay) = relay {
        tasks.spawn("relay", relay::run(relay, answered));
    }
    tasks.spawn("idempotency", idempotency::forget_expired(database.single.clone(), stop.clone()));
    lifecycle.started();

    // The operations port answers until everything else has ended.
    let last = CancellationToken::new();
    let ops = tokio::spawn(ops.serve(ops_listener, last.clone()));
    let ended = run::until_stopped(tasks, stop, GRACE).await;
    last.cancel();
    ops.await??;
    database.close().await;
    telemetry.shutdown().await;
    ended
}

/// Ready means: Postgres answers. What is wrong with the relay costs time, not commands.
async fn readiness(database: Database, relay: Option<relay::RelayStatus>) -> Report {
    let mut checks = vec![Check::of_store("postgres", sqlx::query("select 1").execute(&database.single)).await];
    checks.extend(relay.iter().flat_map(relay::RelayStatus::checks));
    Report::of(checks)
}
