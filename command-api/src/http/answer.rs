//! What a command's outcome looks like to a client.

use axum::response::{IntoResponse, Response};
use events::{ConsistencyToken, Listing};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use service::http::ETag;

/// Sent back to a query, it makes that see what was written.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

pub fn created(listing: &Listing, token: &ConsistencyToken) -> Response {
    let place = format!("/api/v1/listings/{}", listing.id);
    (StatusCode::CREATED, [(LOCATION, place)], token_of(token), ETag::of(listing.version), axum::Json(listing)).into_response()
}

pub fn gone(token: &ConsistencyToken) -> Response {
    (StatusCode::NO_CONTENT, token_of(token)).into_response()
}

fn token_of(token: &ConsistencyToken) -> [(HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&token.encode()).unwrap_or_else(|_| HeaderValue::from_static(""));
    [(CONSISTENCY_TOKEN, value)]
}
