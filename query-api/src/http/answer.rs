//! What answers have in common: who may keep them, whether they are stale, and who asked for them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use events::Roles;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use service::bearer::Visitor;
use service::problem::Problem;

use crate::consistency::Freshness;
use crate::visibility::{Audience, Viewer};

/// Headers of an answer, those of the layers around it too: room for all of them at once.
const HEADERS: usize = 8;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const STALE: HeaderName = HeaderName::from_static("stale");

impl From<Visitor> for Viewer {
    fn from(Visitor(bearer): Visitor) -> Self {
        match bearer {
            None => Self::Anyone,
            Some(bearer) if Roles::known(bearer.roles()).has_any(Roles::ADMIN) => Self::Admin,
            Some(bearer) => Self::User(bearer.id.into()),
        }
    }
}

/// A problem that is of this moment and for this caller: no cache may keep it.
#[derive(Debug)]
pub struct Refused(Problem);

impl<E> From<E> for Refused
where
    Problem: From<E>,
{
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        describe(response.headers_mut(), Audience::Viewer, Freshness::Fresh);
        response
    }
}

/// A JSON body for its audience.
pub fn json(body: Bytes, audience: Audience, freshness: Freshness) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    describe(headers, audience, freshness);
    response
}

/// JSON of one aggregate, with its version.
pub fn versioned(body: Bytes, etag: HeaderValue, audience: Audience, freshness: Freshness) -> Response {
    let mut response = json(body, audience, freshness);
    response.headers_mut().insert(ETAG, etag);
    response
}

/// The caller has this version already.
pub fn not_modified(etag: HeaderValue, audience: Audience, freshness: Freshness) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    describe(headers, audience, freshness);
    response
}

/// Shared caches may keep what anyone may see, if they ask each time whether it is still so.
fn describe(headers: &mut HeaderMap, audience: Audience, freshness: Freshness) {
    headers.insert(
        CACHE_CONTROL,
        match audience {
            Audience::Everyone => HeaderValue::from_static("public, no-cache"),
            Audience::Viewer => HeaderValue::from_static("private, no-store"),
        },
    );
    headers.insert(VARY, HeaderValue::from_name(AUTHORIZATION));
    if freshness == Freshness::Stale {
        headers.insert(STALE, HeaderValue::from_static("?1"));
    }
}
