//! `query-api serve`.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde_json::json;
use service::ops::Ops;
use service::program::Program;
use tracing::info;

use crate::app::App;
use crate::metrics::PREFIX;
use crate::settings::ServeSettings;
use crate::{http, invalidations};

/// Telemetry → dependencies → run → drain.
pub async fn run(settings: ServeSettings) -> anyhow::Result<()> {
    let mut program = Program::start("query-api", &settings.log)?;

    let mut registry = Registry::with_prefix(PREFIX);
    let app = App::new(&settings, &mut registry)?;
    info!(
        database = settings.database.shown(),
        redis = settings.redis.shown(),
        opensearch = settings.opensearch.shown(),
        nats = settings.nats.shown(),
        "Answers from the stores at these addresses"
    );

    let (ready, shown) = (app.clone(), app.clone());
    let ops = Ops::new(
        registry,
        &program.lifecycle,
        move || {
            let app = ready.clone();
            async move { app.readiness().await }
        },
        move || {
            let (generation, pages_kept) = (shown.generations.listing_page(), shown.pages.is_used());
            async move { json!({ "generations": { "listing_page": generation }, "pages_kept": pages_kept }) }
        },
    );
    program.open_ops(settings.ops.ops_addr, ops).await?;

    let routes = http::routes(app.clone(), program.lifecycle.clone());
    program.serve_http(settings.http.http_addr, routes).await?;
    program.spawn("generations", {
        let (app, stop) = (app.clone(), program.stop.clone());
        async move { app.generations.follow(&app.database, stop).await }
    });
    program.spawn("invalidations", {
        let (nats, pages, stop) = (settings.nats.clone(), Arc::clone(&app.pages), program.stop.clone());
        async move { invalidations::follow(nats.urls(), pages, stop).await }
    });
    program.spawn("keys", {
        let (app, stop) = (app.clone(), program.stop.clone());
        async move {
            let _ = stop.run_until_cancelled(app.verifier.prefetch()).await;
            stop.cancelled().await;
            Ok(())
        }
    });
    program.lifecycle.started();
    program.until_stopped(std::future::ready(())).await
}
