//! Commands on stock: body → command → call → answer.

use axum::extract::State;
use axum::response::Response;
use events::VariantId;
use events::stock::StockLevel;
use http::StatusCode;
use service::http::{Draft, Header, IdempotencyKey, IfMatch, Path};
use service::problem::Problem;

use super::answer;
use super::seller::Seller;
use crate::app::App;
use crate::idempotency::Keyed;
use crate::inventory::record_movement::{self, MovementDraft, RecordMovement};
use crate::inventory::set_stock::{self, SetStock, SetStockDraft};

/// Set a stock to a count
///
/// What is absent stays as it is. Reaching or leaving zero also changes the listing.
#[utoipa::path(
    put, path = "/api/v1/variants/{id}/stock", operation_id = "setStock", tag = "inventory",
    params(
        ("id" = VariantId, Path),
        ("If-Match" = Option<String>, Header, description = "Only if the stock is at this version"),
    ),
    request_body = SetStockDraft,
    responses(
        (status = 200, description = "The stock as it is now; at the same version if nothing changed", body = StockLevel, headers(
            ("ETag", description = "Its version"),
            ("Consistency-Token", description = "Sent to a query, makes that see this stock and its listing"),
        )),
        (status = 409, description = "More are reserved", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn set_stock(
    State(app): State<App>,
    Seller(caller): Seller,
    Path(variant): Path<VariantId>,
    expected: Header<IfMatch>,
    body: Draft<SetStockDraft>,
) -> Result<Response, Problem> {
    let expected = expected.read()?;
    let command = SetStock::new(body.value, body.unknown)?;
    let done = set_stock::set_stock(&app, &caller, variant, expected.as_ref(), &command).await?;
    Ok(answer::stock(StatusCode::OK, &done))
}

/// Record a movement of pieces
///
/// They came (`in`), went (`out`) or were miscounted (`adjustment`). Reaching or leaving zero also changes the listing.
#[utoipa::path(
    post, path = "/api/v1/variants/{id}/movements", operation_id = "recordMovement", tag = "inventory",
    params(
        ("id" = VariantId, Path),
        ("If-Match" = Option<String>, Header, description = "Only if the stock is at this version"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with the same key gives the first answer; kept 24 hours"),
    ),
    request_body = MovementDraft,
    responses(
        (status = 201, description = "The stock as it is now", body = StockLevel, headers(
            ("ETag", description = "Its version"),
            ("Consistency-Token", description = "Sent to a query, makes that see this stock and its listing"),
        )),
        (status = 409, description = "There are not that many", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn record_movement(
    State(app): State<App>,
    Seller(caller): Seller,
    Path(variant): Path<VariantId>,
    expected: Header<IfMatch>,
    key: Header<IdempotencyKey>,
    body: Draft<MovementDraft>,
) -> Result<Response, Problem> {
    let expected = expected.read()?;
    let key = key.read()?;
    let command = RecordMovement::new(body.value, body.unknown)?;
    let route = format!("POST /api/v1/variants/{variant}/movements");
    let keyed = key.map(|key| Keyed::new(caller.user, route, &key, &body.bytes));
    let done = record_movement::record_movement(&app, &caller, variant, expected.as_ref(), keyed.as_ref(), &command).await?;
    Ok(answer::stock(StatusCode::CREATED, &done))
}
