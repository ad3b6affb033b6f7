//! How long a route may take: each has its own, and says 504 when it has passed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::problem::{Kind, Problem};

/// A request that took more than this part of its deadline is counted: the next one may not make it.
const NEAR: f64 = 0.8;

/// The deadline of one route: `.layer(deadline(SEARCH))` on it. Passing it drops the handler's work and answers the problem
/// `timeout`, which says that the outcome is unknown.
#[must_use]
pub fn deadline(within: Duration) -> DeadlineLayer {
    DeadlineLayer { within }
}

#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    within: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = WithDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithDeadline { inner, within: self.within }
    }
}

#[derive(Debug, Clone)]
pub struct WithDeadline<S> {
    inner: S,
    within: Duration,
}

impl<S> Service<Request> for WithDeadline<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let within = self.within;
        let started = Instant::now();
        request.extensions_mut().insert(Deadline { at: started + within });
        let work = self.inner.call(request);
        Box::pin(async move {
            let (mut response, passed) = match tokio::time::timeout(within, work).await {
                Ok(outcome) => (outcome?, false),
                Err(_) => (self::passed(within).into_response(), true),
            };
            let took = started.elapsed();
            if passed || took > within.mul_f64(NEAR) {
                response.extensions_mut().insert(Spent { took, passed });
            }
            Ok(response)
        })
    }
}

pub(super) fn passed(within: Duration) -> Problem {
    Problem::new(Kind::Timeout, format!("No answer within {} ms; whether it was done is not known", within.as_millis()))
}

/// When the request at hand has to be answered: for handlers that wait for something and must not wait longer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
}

impl Deadline {
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Problem;

    /// A route without a deadline of its own is a mistake in the program, not in the request.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(|| Problem::logged(&anyhow::anyhow!("the route {} has no deadline", parts.uri.path())))
    }
}

/// Carried outwards with the response of a request that took all of its deadline, or nearly, to be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub took: Duration,
    pub passed: bool,
}
