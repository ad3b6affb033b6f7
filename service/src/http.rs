//! The HTTP side of a program: one stack of middleware around its routes, and extractors whose errors are problems.
//!
//! [`wrap`] adds the middleware in the required order. The extractors ([`Json`], [`Draft`], [`Raw`], [`Query`], [`Path`], [`Header`])
//! never answer plain text. Order the arguments of a handler as the contract orders the checks: the bearer of the token
//! ([`crate::bearer`]) first, then path and query, then headers, and the body last.

mod body;
mod deadline;
mod entity;
mod header;
mod metrics;
mod observe;
mod parameters;
mod preference;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tower::ServiceBuilder;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _, SizeAbove};

pub use body::{AnyJson, Draft, Json, MediaTypes, Raw};
pub use deadline::{Deadline, Deadlines};
pub use entity::{ETag, IfMatch, IfNoneMatch};
pub use header::{Header, RequestHeader, RequestId};
pub use metrics::HttpMetrics;
pub use parameters::{Parameters, Path, Query};
pub use preference::{IdempotencyKey, Prefer};

use self::observe::Observe;
use crate::lifecycle::Lifecycle;
use crate::problem::{Kind, Problem};

/// The longest body that a route accepts, in bytes, unless it has a `DefaultBodyLimit` of its own.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// The shortest answer that is compressed, in bytes. Below it, compression costs more than it saves.
const WORTH_COMPRESSING: u64 = 1024;

/// Wraps a program's routes with the middleware that all of them need. From the outside in: metrics, request id, trace, access log,
/// problems with `instance` and `trace_id`, a panic as a problem, the route's deadline; gzip; the body limit. Call it last: a route
/// that is added later has none of it.
pub fn wrap(router: Router, metrics: HttpMetrics, deadlines: Deadlines, lifecycle: Lifecycle) -> Router {
    let compressible = DefaultPredicate::new().and(SizeAbove::new(WORTH_COMPRESSING));
    router
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        // One layer for the router, because axum boxes each layer. The first of the three is the outermost.
        .layer(
            ServiceBuilder::new()
                .layer(Observe::new(metrics, deadlines, lifecycle))
                .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible))
                .layer(DefaultBodyLimit::max(BODY_LIMIT)),
        )
}

async fn no_such_route() -> Problem {
    Problem::not_found("There is nothing at this address")
}

async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "This method is not allowed here; see the header Allow")
}
