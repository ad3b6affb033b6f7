//! `query-api serve`.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde_json::json;
use service::ops::{self, Ops};
use service::run::{self, Tasks};
use service::serve::{self, Drain};
use service::telemetry;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::App;
use crate::metrics::PREFIX;
use crate::settings::ServeSettings;
use crate::{http, invalidations};

pub async fn run(settings: ServeSettings) -> anyhow::Result<()> {
    let traces = telemetry::init("query-api", &settings.log)?;
    let stop = run::stop_on_signal()?;
    // The operations port answers until everything else has ended.
    let stopped = CancellationToken::new();

    let mut registry = Registry::with_prefix(PREFIX);
    let app = App::new(&settings, &mut registry)?;
    let (asked, told) = (app.clone(), app.clone());
    let ops = Ops::new(
        registry,
        move || {
            let app = asked.clone();
            async move { app.readiness().await }
        },
        move || {
            let (generations, pages_kept) = (told.generations.status(), told.pages.is_used());
            async move { json!({ "generations": generations, "pages_kept": pages_kept }) }
        },
    );
    let lifecycle = ops.lifecycle();
    let ops_port = ops::bind(settings.ops.ops_addr).await?;
    let http_port = serve::bind("HTTP_ADDR", settings.http.http_addr).await?;
    info!(
        database = settings.database.shown(),
        redis = settings.redis.shown(),
        opensearch = settings.opensearch.shown(),
        nats = settings.nats.shown(),
        "Answers from the stores at these addresses, as far as they are available"
    );

    app.generations.refresh(&app.database, &app.redis).await;
    let operations = tokio::spawn(ops.serve(ops_port, stopped.clone()));
    let mut tasks = Tasks::new();
    let routes = http::routes(app.clone(), lifecycle.clone());
    tasks.spawn("http", serve::serve(http_port, routes, lifecycle.clone(), Drain::default(), stop.clone()));
    tasks.spawn("generations", {
        let (app, stop) = (app.clone(), stop.clone());
        async move { app.generations.follow(&app.database, &app.redis, stop).await }
    });
    tasks.spawn("invalidations", {
        let (nats, pages, stop) = (settings.nats.clone(), Arc::clone(&app.pages), stop.clone());
        async move { invalidations::follow(nats.urls(), pages, stop).await }
    });
    tasks.spawn("keys", {
        let (app, stop) = (app.clone(), stop.clone());
        async move {
            let _ = stop.run_until_cancelled(app.verifier.prefetch()).await;
            stop.cancelled().await;
            Ok(())
        }
    });
    lifecycle.started();

    let outcome = run::until_stopped(tasks, stop, run::GRACE).await;
    stopped.cancel();
    let _ = operations.await;
    traces.shutdown().await;
    outcome
}
