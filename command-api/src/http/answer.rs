//! The answer to a client that an outcome becomes.

use axum::response::{IntoResponse, Response};
use events::stock::StockLevel;
use events::{Listing, Stock};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use service::http::ETag;

use crate::command::{CommandOutcome, Effect};

/// A query that is sent this token shows what was written.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// The command was done before, and this is the answer that it had.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub fn created(outcome: &CommandOutcome<Listing>) -> Response {
    let place = format!("/api/v1/listings/{}", outcome.answer.id);
    (StatusCode::CREATED, [(LOCATION, place)], listing(outcome)).into_response()
}

pub fn listing(outcome: &CommandOutcome<Listing>) -> Response {
    let body = (ETag::of(outcome.answer.version), axum::Json(&outcome.answer));
    with_headers(body.into_response(), outcome)
}

pub fn stock(status: StatusCode, outcome: &CommandOutcome<Stock>) -> Response {
    let body = (status, ETag::of(outcome.answer.version), axum::Json(StockLevel::from(&outcome.answer)));
    with_headers(body.into_response(), outcome)
}

pub fn deleted(outcome: &CommandOutcome<()>) -> Response {
    with_headers(StatusCode::NO_CONTENT.into_response(), outcome)
}

fn with_headers<T>(mut response: Response, outcome: &CommandOutcome<T>) -> Response {
    // A token is base64: it is always a valid header value.
    if let Ok(token) = HeaderValue::from_str(&outcome.token.encode()) {
        response.headers_mut().insert(CONSISTENCY_TOKEN, token);
    }
    if outcome.effect == Effect::Replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("?1"));
    }
    response
}
