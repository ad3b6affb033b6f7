//! The parameters in a request's path.

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// As axum's, but what cannot be read (no uuid, NUL, not UTF-8) is `malformed`.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Nowhere else can a NUL come from: what is not a visible letter is percent-encoded.
        if parts.uri.path().contains("%00") {
            return Err(Problem::malformed("The path has a NUL"));
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) if failed.status().is_client_error() => {
                Err(Problem::malformed(failed.body_text()))
            }
            // The route and the handler disagree about what is in the path: our mistake.
            Err(rejection) => Err(Problem::logged(&anyhow::Error::new(rejection))),
        }
    }
}
