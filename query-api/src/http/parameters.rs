//! Parameters that several routes have in common, or that a route does not have.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use service::http::Parameters;
use service::problem::Problem;

/// For routes that take none: any parameter is refused.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct NoParameters {}

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            // The usual case costs nothing.
            None | Some("") => Ok(Self {}),
            Some(query) => Parameters::parse(query)?.read(),
        }
    }
}
