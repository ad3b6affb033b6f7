//! What a command's outcome looks like to a client.

use axum::response::{IntoResponse, Response};
use events::stock::StockLevel;
use events::{ConsistencyToken, Listing, Stock};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use service::http::ETag;

use crate::outcome::Done;

/// Sent back to a query, it makes that see what was written.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// The answer was given before: nothing was done for this request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub fn created(done: &Done<Listing>) -> Response {
    let place = format!("/api/v1/listings/{}", done.state.id);
    (StatusCode::CREATED, [(LOCATION, place)], listing(done)).into_response()
}

pub fn listing(done: &Done<Listing>) -> Response {
    let mut response = (ETag::of(done.state.version), axum::Json(&done.state)).into_response();
    tell(&mut response, &done.token, done.replayed);
    response
}

pub fn stock(status: StatusCode, done: &Done<Stock>) -> Response {
    let mut response = (status, ETag::of(done.state.version), axum::Json(StockLevel::from(&done.state))).into_response();
    tell(&mut response, &done.token, done.replayed);
    response
}

pub fn gone(token: &ConsistencyToken) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    tell(&mut response, token, false);
    response
}

fn tell(response: &mut Response, token: &ConsistencyToken, replayed: bool) {
    // A token is base64: it always fits.
    if let Ok(token) = HeaderValue::from_str(&token.encode()) {
        response.headers_mut().insert(CONSISTENCY_TOKEN, token);
    }
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("?1"));
    }
}
