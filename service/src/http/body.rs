//! Request bodies. Each extractor checks the content type (415), then reads up to the route's limit (413), then parses (400, 422).

use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json;
use crate::problem::{Fault, Kind, Problem};

/// The content types that a route accepts. An entry that begins with `+` is a suffix: `+json` accepts `application/ld+json`.
pub trait MediaTypes: Send {
    const ACCEPTED: &'static [&'static str];
}

/// `application/json` and every type with the suffix `+json`.
#[derive(Debug, Clone, Copy)]
pub struct AnyJson;

impl MediaTypes for AnyJson {
    const ACCEPTED: &'static [&'static str] = &["application/json", "+json"];
}

/// A JSON body without unknown members; as an answer, a JSON body. `T` must not have `serde(flatten)`, which accepts unknown members
/// silently. If the value has further rules, use [`Draft`], so that all faults are reported together.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// A JSON body that is parsed but not checked. The handler reports its unknown members together with all rules that the value breaks.
/// The bytes identify a repeated request.
#[derive(Debug, Clone)]
pub struct Draft<T, M = AnyJson> {
    pub value: T,
    pub unknown: Vec<Fault>,
    pub bytes: Bytes,
    media: PhantomData<M>,
}

/// The bytes of a body whose content type and size were checked.
#[derive(Debug, Clone)]
pub struct Raw<M> {
    pub bytes: Bytes,
    media: PhantomData<M>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Draft { value, unknown, .. } = Draft::<T>::from_request(request, state).await?;
        if unknown.is_empty() { Ok(Self(value)) } else { Err(Problem::invalid(unknown)) }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, M: MediaTypes, S: Send + Sync> FromRequest<S> for Draft<T, M> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Raw { bytes, .. } = Raw::<M>::from_request(request, state).await?;
        let (value, unknown) = json::read(&bytes)?;
        Ok(Self { value, unknown, bytes, media: PhantomData })
    }
}

impl<M: MediaTypes, S: Send + Sync> FromRequest<S> for Raw<M> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_accepted(request.headers(), M::ACCEPTED) {
            return Err(unsupported(M::ACCEPTED));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::TooLarge, "The body is larger than this route accepts"),
            _ => Problem::malformed("The body ended before it was complete"),
        })?;
        Ok(Self { bytes, media: PhantomData })
    }
}

fn is_accepted(headers: &HeaderMap, accepted: &[&str]) -> bool {
    let Some(sent) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    accepted
        .iter()
        .any(|one| if one.starts_with('+') { essence.ends_with(one) && essence.contains('/') } else { essence == *one })
}

fn unsupported(accepted: &[&str]) -> Problem {
    let named: Vec<&str> = accepted.iter().copied().filter(|one| !one.starts_with('+')).collect();
    Problem::new(Kind::UnsupportedMediaType, format!("Content-Type must be {}", named.join(" or ")))
}
