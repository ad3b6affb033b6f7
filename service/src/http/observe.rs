//! The two layers around every request: outside, what is seen of it; inside, what it is answered when it fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body;
use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::{Instrument as _, field, info, info_span};

use super::metrics::HttpMetrics;
use super::{RequestId, deadline};
use crate::ops::Lifecycle;
use crate::problem::Problem;
use crate::telemetry;

/// For routes that set no deadline of their own, and in case one is forgotten: longer than any deadline of the contract.
const LAST_RESORT: Duration = Duration::from_secs(30);

/// What a layer of the framework says of a refused request is shown if it is no longer than this.
const PLAIN_DETAIL_LIMIT: usize = 1024;

/// The label of requests that no route took: their paths are the callers' invention and must not become series.
const UNMATCHED: &str = "<unmatched>";

pub(super) struct Observer {
    pub metrics: HttpMetrics,
    pub lifecycle: Lifecycle,
}

/// Outermost, so that nothing happens unseen: not a panic, not a deadline, not a caller who went away.
pub(super) async fn observe(State(observer): State<Arc<Observer>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
    let path = path_of(&request);
    let seen = observer.metrics.begin(&method, &route);

    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());

    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        url.path = path,
        request.id = id.as_str(),
        http.response.status_code = field::Empty,
        otel.status_code = field::Empty,
    );
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    telemetry::set_parent(&span, parent);

    let mut response = next.run(request).instrument(span.clone()).await;
    if response.status() == StatusCode::NOT_ACCEPTABLE {
        // Compression says so outside of `answer`, and says nothing more.
        response = span.in_scope(|| not_acceptable(&path));
    }

    let status = response.status();
    let took = started.elapsed();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    span.in_scope(|| {
        info!(
            target: "access",
            duration_ms = took.as_secs_f64() * 1e3,
            http.request.method = %method,
            http.route = route,
            url.path = path,
            http.response.status_code = status.as_u16(),
            request.id = id.as_str(),
            "Answered {method} {path} with {}", status.as_u16()
        );
    });
    seen.answered(&response, took);

    response.headers_mut().insert(RequestId::NAME, id.header());
    if observer.lifecycle.is_draining() {
        // A caller who keeps the connection could send the next request at the very moment at which it is closed.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Innermost: whatever comes out of a route is an answer, and what is not a good one is a problem with its instance and
/// trace id.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let path = path_of(&request);
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(LAST_RESORT, work).await {
        Ok(Ok(response)) => response,
        // The panic hook has logged it.
        Ok(Err(_)) => Problem::internal().into_response(),
        Err(_) => deadline::passed(LAST_RESORT).into_response(),
    };
    finish(response, &path).await
}

/// Completes a problem, and makes one of a bare error that some layer of the framework answered.
async fn finish(mut response: Response, path: &str) -> Response {
    let trace = telemetry::current_trace_id();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return keeping_headers(problem.respond(Some(path), trace.as_deref()), response);
    }
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || !is_plain(&response) {
        return response;
    }
    let (parts, text) = response.into_parts();
    let told = body::to_bytes(text, PLAIN_DETAIL_LIMIT).await.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let detail = told.filter(|text| !text.is_empty()).unwrap_or_else(|| status.to_string());
    match Problem::of_status(status, detail) {
        Some(problem) => {
            keeping_headers(problem.respond(Some(path), trace.as_deref()), Response::from_parts(parts, body::Body::empty()))
        }
        None => Response::from_parts(parts, body::Body::empty()),
    }
}

fn not_acceptable(path: &str) -> Response {
    let detail = "None of the encodings that Accept-Encoding permits is to be had here";
    let problem = Problem::of_status(StatusCode::NOT_ACCEPTABLE, detail).unwrap_or_else(Problem::internal);
    problem.respond(Some(path), telemetry::current_trace_id().as_deref())
}

fn is_plain(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// What the route had said besides its problem (`Allow`, `RateLimit`) stays said.
fn keeping_headers(mut problem: Response, said: Response) -> Response {
    let (parts, _) = said.into_parts();
    let written: Vec<HeaderName> = problem.headers().keys().cloned().collect();
    for (name, value) in &parts.headers {
        if name != CONTENT_LENGTH && !written.contains(name) {
            problem.headers_mut().append(name, value.clone());
        }
    }
    let fresh = std::mem::replace(problem.extensions_mut(), parts.extensions);
    problem.extensions_mut().extend(fresh);
    problem
}

/// The path as the caller sent it, also where a router is nested in another.
fn path_of(request: &Request) -> String {
    request.extensions().get::<OriginalUri>().map_or_else(|| request.uri().path(), |original| original.0.path()).to_owned()
}
