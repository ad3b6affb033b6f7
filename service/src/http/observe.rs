//! The layer around every request: request id, trace, access log, metrics, deadline, panics, and the form of error answers.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{self, HttpBody};
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Span, field, info, info_span};

use super::RequestId;
use super::deadline::{self, Deadline, Deadlines, Spent};
use super::metrics::{HttpMetrics, Route, Usual};
use crate::lifecycle::Lifecycle;
use crate::problem::Problem;
use crate::telemetry::{self, RequestTrace};

/// The longest plain-text error of another layer that becomes the detail of a problem, in bytes.
const PLAIN_DETAIL_LIMIT: usize = 1024;

/// The outermost layer: it counts and logs every request, also after a panic, a passed deadline, or a client that closed the
/// connection. Every error that leaves it is a problem with its instance and trace id.
///
/// It is one service, and not one layer for each task: axum's `from_fn` boxes each request twice (decision 0706 has the figures).
#[derive(Clone)]
pub(super) struct Observe(Arc<Observer>);

struct Observer {
    metrics: Arc<HttpMetrics>,
    deadlines: Deadlines,
    /// The series of the routes that have a deadline, in the order of `deadlines`.
    usual: Vec<Usual>,
    lifecycle: Lifecycle,
}

impl Observe {
    pub fn new(metrics: HttpMetrics, deadlines: Deadlines, lifecycle: Lifecycle) -> Self {
        let usual = deadlines.routes().map(|(method, path)| metrics.expect(method, path)).collect();
        Self(Arc::new(Observer { metrics: Arc::new(metrics), deadlines, usual, lifecycle }))
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, observer: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub(super) struct Observed<S> {
    inner: S,
    observer: Arc<Observer>,
}

impl<S, B> Service<Request> for Observed<S>
where
    S: Service<Request, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let arrived = Observation::of(&mut request);
        let in_flight = self.observer.metrics.begin(&arrived.method, arrived.route.clone());
        let known = self.observer.deadlines.find(&arrived.method, arrived.route.as_str());
        let within = self.observer.deadlines.at(known);
        let deadline = Deadline { at: arrived.received + within };
        request.extensions_mut().insert(deadline);
        if !arrived.method.is_safe() {
            // The answer of a write is small. If it were encoded, an encoding that we do not have would turn a write that was done into 406.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let trace = arrived.trace(&request);
        let work = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let observer = Arc::clone(&self.observer);
        let work = Box::pin(async move {
            let (response, passed) = match tokio::time::timeout_at(deadline.at, work).await {
                Ok(Ok(Ok(response))) => (response.map(axum::body::Body::new), false),
                Ok(Ok(Err(never))) => match never {},
                // The panic hook has logged it.
                Ok(Err(_)) => (Problem::internal().into_response(), false),
                Err(_) => (deadline::passed(within).into_response(), true),
            };
            let mut response = finish(response, &arrived.uri).await;
            let took = arrived.received.elapsed();
            arrived.log(response.status(), took);
            let spent = if passed { Spent::All } else { Spent::of(took, within) };
            in_flight.answered(&response, took, spent, known.map(|index| &observer.usual[index]));
            response.headers_mut().insert(RequestId::NAME, arrived.id.header());
            if observer.lifecycle.is_draining() {
                // A client that keeps the connection could send its next request while we close it.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        });
        Answering { trace, work }
    }
}

/// The work on an answer, in its trace. Entering a span costs as much as routing a request. It is entered once for each poll;
/// `tracing::Instrument` enters it once more for the drop.
pub(super) struct Answering {
    trace: RequestTrace,
    work: Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>,
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { trace, work } = &mut *self;
        trace.in_scope(|| work.as_mut().poll(context))
    }
}

/// What is kept of a request until it is answered.
struct Observation {
    received: Instant,
    method: Method,
    route: Route,
    /// As the client sent it, also where a router is nested in another.
    uri: Uri,
    id: RequestId,
}

impl Observation {
    fn of(request: &mut Request) -> Self {
        let id = RequestId::of(request.headers());
        request.extensions_mut().insert(id.clone());
        let sent = request.extensions().get::<OriginalUri>().map_or_else(|| request.uri(), |original| &original.0);
        Self { received: Instant::now(), method: request.method().clone(), route: Route::of(request), uri: sent.clone(), id }
    }

    /// A span if traces are exported, else only its ids.
    fn trace(&self, request: &Request) -> RequestTrace {
        let parent = request.headers().get(telemetry::TRACEPARENT).and_then(|value| value.to_str().ok());
        if !telemetry::are_traces_exported() {
            return RequestTrace::ids(parent);
        }
        let Self { method, route, .. } = self;
        let route = route.as_str();
        let span = info_span!(
            "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            http.request.method = %method,
            http.route = route,
            url.path = self.uri.path(),
            request.id = self.id.as_str(),
            http.response.status_code = field::Empty,
            otel.status_code = field::Empty,
        );
        telemetry::set_parent(&span, parent);
        RequestTrace::Span(span)
    }

    /// Writes the access log. Call it within the request's trace.
    fn log(&self, status: StatusCode, took: Duration) {
        let Self { method, route, uri, id, .. } = self;
        let path = uri.path();
        if telemetry::are_traces_exported() {
            let span = Span::current();
            span.record("http.response.status_code", status.as_u16());
            if status.is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
        }
        info!(
            target: "access",
            duration_ms = took.as_secs_f64() * 1e3,
            http.request.method = %method,
            http.route = route.as_str(),
            url.path = path,
            http.response.status_code = status.as_u16(),
            request.id = id.as_str(),
            "Answered {method} {path} with {}", status.as_u16()
        );
    }
}

/// Adds instance and trace id to a problem, and makes a problem of a plain error from another layer.
async fn finish(mut response: Response, uri: &Uri) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (path, trace) = (uri.path(), telemetry::current_trace_id());
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return keeping_headers(problem.respond(Some(path), trace.as_deref()), response);
    }
    if status == StatusCode::NOT_ACCEPTABLE {
        // It comes from the compression layer, without a text.
        let detail = "None of the encodings that Accept-Encoding permits is available here";
        let problem = Problem::of_status(status, detail).unwrap_or_else(Problem::internal);
        return problem.respond(Some(path), trace.as_deref());
    }
    if !is_plain(&response) {
        return response;
    }
    let (parts, text) = response.into_parts();
    let text = body::to_bytes(text, PLAIN_DETAIL_LIMIT).await.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let detail = text.filter(|text| !text.is_empty()).unwrap_or_else(|| status.to_string());
    match Problem::of_status(status, detail) {
        Some(problem) => {
            keeping_headers(problem.respond(Some(path), trace.as_deref()), Response::from_parts(parts, body::Body::empty()))
        }
        None => Response::from_parts(parts, body::Body::empty()),
    }
}

fn is_plain(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// Keeps the headers that the route set besides its problem, such as `Allow` and `RateLimit`.
fn keeping_headers(mut problem: Response, original: Response) -> Response {
    let (parts, _) = original.into_parts();
    let written: Vec<HeaderName> = problem.headers().keys().cloned().collect();
    for (name, value) in &parts.headers {
        if name != CONTENT_LENGTH && name != CONTENT_ENCODING && !written.contains(name) {
            problem.headers_mut().append(name, value.clone());
        }
    }
    let fresh = std::mem::replace(problem.extensions_mut(), parts.extensions);
    problem.extensions_mut().extend(fresh);
    problem
}
