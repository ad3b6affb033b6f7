//! The deadline of each route. A request that exceeds it is answered 504.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::Method;
use http::request::Parts;
use tokio::time::Instant;
use utoipa::openapi::Paths;

use crate::problem::{Kind, Problem};

/// The deadline of a route that sets none. Longer than any deadline of the contract.
const DEFAULT: Duration = Duration::from_secs(30);

/// A request that took more than this part of its deadline is counted as a near timeout.
const NEAR: f64 = 0.8;

/// The deadlines of a program's routes, which [`super::wrap`] enforces. When one passes, the handler's future is dropped and the answer
/// is the problem `timeout`: the outcome is unknown.
///
/// It is one table, and not a layer around each route, because axum boxes a request once for every layer that it passes.
#[derive(Debug, Clone, Default)]
pub struct Deadlines {
    /// About ten entries: a linear search is as fast as a map.
    routes: Vec<(Method, String, Duration)>,
}

impl Deadlines {
    /// Sets the deadline of documented routes and returns them: `.routes(deadlines.within(SEARCH, routes!(search)))`.
    pub fn within<Schemas, Routes>(
        &mut self,
        within: Duration,
        (schemas, paths, routes): (Schemas, Paths, Routes),
    ) -> (Schemas, Paths, Routes) {
        for (path, item) in &paths.paths {
            let documented = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, _) in documented.into_iter().filter(|(_, operation)| operation.is_some()) {
                self.set(method, path, within);
            }
        }
        (schemas, paths, routes)
    }

    /// Sets the deadline of one route.
    pub fn set(&mut self, method: Method, path: &str, within: Duration) {
        self.routes.push((method, path.to_owned(), within));
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&Method, &str)> {
        self.routes.iter().map(|(method, path, _)| (method, path.as_str()))
    }

    /// The deadline of a route, if one was set.
    #[must_use]
    pub fn own(&self, method: &Method, path: &str) -> Option<Duration> {
        self.find(method, path).map(|index| self.routes[index].2)
    }

    /// The index of a route among the [`Deadlines::routes`].
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.routes.iter().position(|(of, route, _)| of == method && route == path)
    }

    pub(super) fn at(&self, index: Option<usize>) -> Duration {
        index.map_or(DEFAULT, |index| self.routes[index].2)
    }
}

pub(super) fn passed(within: Duration) -> Problem {
    Problem::new(Kind::Timeout, format!("No answer within {} ms; the outcome is unknown", within.as_millis()))
}

/// How much of its deadline a request took, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    Little,
    /// More than [`NEAR`].
    Most,
    All,
}

impl Spent {
    pub fn of(took: Duration, within: Duration) -> Self {
        if took > within.mul_f64(NEAR) { Self::Most } else { Self::Little }
    }
}

/// The deadline of the current request, for handlers that wait for something.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub(super) at: Instant,
}

impl Deadline {
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Problem;

    /// Fails only if the route is not wrapped, which is a bug of the program.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(|| Problem::logged(&anyhow::anyhow!("the route {} has no deadline", parts.uri.path())))
    }
}
