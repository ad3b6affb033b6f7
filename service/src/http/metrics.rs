//! The metrics of HTTP requests.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::deadline::Spent;
use crate::metrics::{Errors, Seconds, seconds_family};
use crate::problem::{Kind, Problem};

/// The status label of a request whose client closed the connection before the answer. No status was sent.
const CLIENT_CLOSED: u16 = 499;

/// The path label of requests that match no route. Their paths are arbitrary and must not become series.
const UNMATCHED: &str = "<unmatched>";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    path: Route,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    path: Route,
}

/// The route of a request. Cloning does not copy its path.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// A request matched this route.
    Matched(MatchedPath),
    /// A route of the table of deadlines, before any request.
    Known(Arc<str>),
    /// A request matched no route.
    None,
}

impl Route {
    pub fn of(request: &Request) -> Self {
        request.extensions().get().cloned().map_or(Self::None, Self::Matched)
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Matched(path) => path.as_str(),
            Self::Known(path) => path,
            Self::None => UNMATCHED,
        }
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// The metrics of HTTP requests, by route. A path that a client invents never becomes a series.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Seconds<RouteLabels>,
    in_flight: Gauge,
    timeouts: Family<RouteLabels, Counter>,
    near_timeouts: Family<RouteLabels, Counter>,
    timeout_durations: Seconds<RouteLabels>,
    errors: Option<Errors>,
}

impl HttpMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: seconds_family(),
            in_flight: Gauge::default(),
            timeouts: Family::default(),
            near_timeouts: Family::default(),
            timeout_durations: seconds_family(),
            errors: None,
        };
        registry.register("http_requests", "Requests answered, by route and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the request's head to the answer's",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being worked on", metrics.in_flight.clone());
        registry.register("timeouts", "Requests that ran into their deadline", metrics.timeouts.clone());
        registry.register("near_timeouts", "Requests that took over 80 % of their deadline", metrics.near_timeouts.clone());
        registry.register_with_unit(
            "timeout_duration",
            "How long requests that ran into their deadline took",
            Unit::Seconds,
            metrics.timeout_durations.clone(),
        );
        metrics
    }

    /// Counts every answer of 5xx as an error of the component `http`, its type being the problem's slug.
    #[must_use]
    pub fn with_errors(self, errors: Errors) -> Self {
        Self { errors: Some(errors), ..self }
    }

    /// Creates the series of a route, so that they show 0 before the first request.
    pub(super) fn expect(&self, method: &Method, path: &str) -> Usual {
        let route = RouteLabels { method: label_of(method), path: Route::Known(path.into()) };
        drop(self.timeouts.get_or_create(&route));
        drop(self.near_timeouts.get_or_create(&route));
        drop(self.timeout_durations.get_or_create(&route));
        let durations = self.durations.get_or_create_owned(&route);
        let RouteLabels { method, path } = route;
        let ok = RequestLabels { method, path, status: StatusCode::OK.as_u16() };
        Usual { method, ok: self.requests.get_or_create_owned(&ok), durations }
    }

    /// Counts a request as in flight until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, method: &Method, path: Route) -> InFlight {
        self.in_flight.inc();
        InFlight { metrics: Arc::clone(self), route: RouteLabels { method: label_of(method), path }, answered: false }
    }
}

/// The series of the usual outcome of a route (200), kept because looking them up by label costs more than all other counting.
pub(super) struct Usual {
    method: &'static str,
    ok: Counter,
    durations: Histogram,
}

pub(super) struct InFlight {
    metrics: Arc<HttpMetrics>,
    route: RouteLabels,
    answered: bool,
}

impl InFlight {
    pub fn answered(mut self, response: &Response, took: Duration, spent: Spent, usual: Option<&Usual>) {
        self.answered = true;
        let status = response.status();
        let seconds = took.as_secs_f64();
        if let Some(usual) = usual.filter(|usual| status == StatusCode::OK && usual.method == self.route.method) {
            usual.ok.inc();
            usual.durations.observe(seconds);
        } else {
            self.count(status.as_u16());
            self.metrics.durations.get_or_create(&self.route).observe(seconds);
        }
        if let Some(errors) = self.metrics.errors.as_ref().filter(|_| status.is_server_error()) {
            let kind = response.extensions().get::<Problem>().map_or(Kind::Internal, |problem| problem.kind);
            errors.count("http", kind.slug());
        }
        let Self { metrics, route, .. } = &self;
        match spent {
            Spent::Little => {}
            Spent::Most => {
                metrics.near_timeouts.get_or_create(route).inc();
            }
            Spent::All => {
                metrics.timeouts.get_or_create(route).inc();
                metrics.timeout_durations.get_or_create(route).observe(seconds);
            }
        }
    }

    fn count(&self, status: u16) {
        let RouteLabels { method, path } = self.route.clone();
        let labels = RequestLabels { method, path, status };
        self.metrics.requests.get_or_create(&labels).inc();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.answered {
            self.count(CLIENT_CLOSED);
        }
    }
}

/// The label of a method. A method that a client invents is `OTHER`.
fn label_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
