//! The operations port: `/health`, `/ready`, `/status` and `/metrics`, for operators. It must not be public.

mod readiness;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::lifecycle::{Lifecycle, Phase};
pub use readiness::{Check, Report};

use crate::problem::Problem;
use crate::serve::serve_plainly;

/// The content type of the metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Timeout of a whole readiness or status report.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// How long open requests may take when the port is closed.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Timeout of the healthcheck; longer than the report may take.
const HEALTHCHECK_WITHIN: Duration = Duration::from_secs(3);

/// Makes a report, each time it is called.
type Reporter<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// The contents of the operations port.
#[derive(Clone)]
pub struct Ops {
    registry: Arc<Registry>,
    lifecycle: Lifecycle,
    readiness: Reporter<Report>,
    status: Reporter<Value>,
}

impl Ops {
    /// `readiness` checks the program's dependencies; `status` shows what only the running process knows. `lifecycle` says whether
    /// the program is starting, started or draining.
    pub fn new<R, S>(
        registry: Registry,
        lifecycle: &Lifecycle,
        readiness: impl Fn() -> R + Send + Sync + 'static,
        status: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Report> + Send + 'static,
        S: Future<Output = Value> + Send + 'static,
    {
        Self {
            registry: Arc::new(registry),
            lifecycle: lifecycle.clone(),
            readiness: Arc::new(move || Box::pin(readiness())),
            status: Arc::new(move || Box::pin(status())),
        }
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .fallback(async || Problem::not_found("/health, /ready, /status and /metrics are here"))
            .with_state(self.clone())
    }

    /// Answers until `stop` is cancelled. Cancel it last: `/ready` and `/metrics` are needed while the program drains.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        if let Err(cut_off) = serve_plainly(listener, self.router(), LAST_ANSWERS_WITHIN, stop).await {
            debug!(error = %cut_off, "The operations port: {cut_off}");
        }
    }
}

/// Binds the operations port and logs its address.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    crate::serve::listen("ops", "Operations", "OPS_ADDR", addr).await
}

/// Liveness does not check dependencies: restarting this program does not repair a database.
async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy" }))
}

async fn ready(State(ops): State<Ops>) -> Response {
    let report = match tokio::time::timeout(REPORT_WITHIN, (ops.readiness)()).await {
        Ok(report) => report,
        Err(_) => Report::of(vec![Check::failed("report", format!("no answer within {} s", REPORT_WITHIN.as_secs()))]),
    };
    let (status, word) = match ops.lifecycle.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Started if !report.ready => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        Phase::Started if report.is_degraded() => (StatusCode::OK, "degraded"),
        Phase::Started => (StatusCode::OK, "ready"),
    };
    let body = json!({ "status": word, "checks": report.checks() });
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn status(State(ops): State<Ops>) -> Response {
    match tokio::time::timeout(REPORT_WITHIN, (ops.status)()).await {
        Ok(status) => Json(status).into_response(),
        Err(_) => {
            Problem::unavailable(format!("The program did not report within {} s", REPORT_WITHIN.as_secs())).into_response()
        }
    }
}

async fn metrics(State(ops): State<Ops>) -> Response {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &ops.registry) {
        return Problem::logged(&anyhow::Error::new(error).context("the metrics cannot be written")).into_response();
    }
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

/// The `healthcheck` subcommand: `GET /ready` at the operations port of a running process. `Ok` if it is ready or degraded; the error has
/// the answer.
pub async fn healthcheck(addr: SocketAddr) -> anyhow::Result<()> {
    if addr.port() == 0 {
        bail!("OPS_ADDR has port 0: the healthcheck cannot know which port was bound");
    }
    let url = format!("http://{}/ready", reachable(addr));
    // Requests to this machine do not go through a proxy.
    let client = reqwest::Client::builder().no_proxy().timeout(HEALTHCHECK_WITHIN).build()?;
    let answer = client.get(&url).send().await.with_context(|| format!("nothing answers at {url}"))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    if !status.is_success() {
        bail!("not ready ({status}): {body}");
    }
    Ok(())
}

/// The address to connect to: an unspecified address, which listens on all interfaces, becomes loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, addr.port())
}
