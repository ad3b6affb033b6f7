//! How long a route may take: each has its own, and says 504 when it has passed.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::Method;
use http::request::Parts;
use tokio::time::Instant;
use utoipa::openapi::Paths;

use crate::problem::{Kind, Problem};

/// For routes that set no deadline of their own: longer than any of the contract.
const LAST_RESORT: Duration = Duration::from_secs(30);

/// A request that took more than this part of its deadline is counted: the next one may not make it.
const NEAR: f64 = 0.8;

/// The deadlines of a program's routes, for [`super::wrap`], which keeps them. Passing one drops the handler's work and answers the
/// problem `timeout`, which says that the outcome is unknown.
///
/// One table, and not a layer around each route: axum boxes a request once more for every layer that it passes.
#[derive(Debug, Clone, Default)]
pub struct Deadlines {
    /// So few that looking through them is as quick as a map.
    routes: Vec<(Method, String, Duration)>,
}

impl Deadlines {
    /// Notes how long documented routes may take, and gives them back: `.routes(deadlines.within(SEARCH, routes!(search)))`.
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

    /// How long one route may take.
    pub fn set(&mut self, method: Method, path: &str, within: Duration) {
        self.routes.push((method, path.to_owned(), within));
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&Method, &str)> {
        self.routes.iter().map(|(method, path, _)| (method, path.as_str()))
    }

    /// How long a route may take, if that was said.
    #[must_use]
    pub fn own(&self, method: &Method, path: &str) -> Option<Duration> {
        self.find(method, path).map(|index| self.routes[index].2)
    }

    /// Where it stands among the [`Deadlines::routes`].
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.routes.iter().position(|(of, route, _)| of == method && route == path)
    }

    pub(super) fn at(&self, index: Option<usize>) -> Duration {
        index.map_or(LAST_RESORT, |index| self.routes[index].2)
    }
}

pub(super) fn passed(within: Duration) -> Problem {
    Problem::new(Kind::Timeout, format!("No answer within {} ms; whether it was done is not known", within.as_millis()))
}

/// What a request took of its deadline, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    Little,
    /// All of it, nearly.
    Most,
    All,
}

impl Spent {
    pub fn of(took: Duration, within: Duration) -> Self {
        if took > within.mul_f64(NEAR) { Self::Most } else { Self::Little }
    }
}

/// When the request at hand has to be answered: for handlers that wait for something and must not wait longer.
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

    /// A route that is not wrapped is a mistake in the program, not in the request.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(|| Problem::logged(&anyhow::anyhow!("the route {} has no deadline", parts.uri.path())))
    }
}
