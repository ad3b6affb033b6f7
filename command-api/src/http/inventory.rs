//! Commands on stock: body → command → call → answer.

use axum::extract::State;
use axum::response::Response;
use events::VariantId;
use events::stock::StockLevel;
use http::StatusCode;
use service::http::{Deadlines, Draft, Header, IdempotencyKey, IfMatch, Path};
use service::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::handler::{Seller, expected, scope, state};
use super::{Noun, Served};
use crate::command::CommandApp;
use crate::inventory::INSUFFICIENT_STOCK;
use crate::inventory::record_movement::{self, MovementDraft, RecordMovement};
use crate::inventory::set_stock::{self, SetStock, SetStockDraft};

pub const NOUN: Noun = Noun {
    tag: "inventory",
    description: "How many pieces there are",
    routes,
    operations: &[set_stock::OPERATION, record_movement::OPERATION],
    problems: &[&INSUFFICIENT_STOCK],
};

fn routes(deadlines: &mut Deadlines) -> OpenApiRouter<Served> {
    OpenApiRouter::new()
        .routes(deadlines.within(set_stock::DEADLINE, routes!(set_stock)))
        .routes(deadlines.within(record_movement::DEADLINE, routes!(record_movement)))
}

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
    State(app): State<CommandApp>,
    seller: Seller,
    Path(variant): Path<VariantId>,
    if_match: Header<IfMatch>,
    body: Draft<SetStockDraft>,
) -> Result<Response, Problem> {
    let command = SetStock::new(variant, expected(&if_match)?, body.value, body.unknown)?;
    let outcome = set_stock::set_stock(&app, &seller.actor, &command).await?;
    Ok(state(StatusCode::OK, &outcome, StockLevel::from(&outcome.answer)))
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
    State(app): State<CommandApp>,
    seller: Seller,
    Path(variant): Path<VariantId>,
    if_match: Header<IfMatch>,
    key: Header<IdempotencyKey>,
    body: Draft<MovementDraft>,
) -> Result<Response, Problem> {
    let expected = expected(&if_match)?;
    let scope = scope(&key, seller.user, format!("POST /api/v1/variants/{variant}/movements"), &body.bytes)?;
    let command = RecordMovement::new(variant, expected, scope, body.value, body.unknown)?;
    let outcome = record_movement::record_movement(&app, &seller.actor, &command).await?;
    Ok(state(StatusCode::CREATED, &outcome, StockLevel::from(&outcome.answer)))
}
