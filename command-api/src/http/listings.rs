//! Commands on listings: body → command → call → answer.

use axum::extract::State;
use axum::response::Response;
use events::{Listing, ListingId};
use service::http::{Draft, Header, IfMatch, Path};
use service::problem::Problem;

use super::answer;
use super::seller::Seller;
use crate::app::App;
use crate::listings::create_listing::{self, CreateListing};
use crate::listings::delete_listing;
use crate::listings::draft::ListingDraft;

/// Create a listing
///
/// Active at once unless `status` says `draft`. Every variant gets a stock; `stock` sets that of the only one.
#[utoipa::path(
    post, path = "/api/v1/listings", operation_id = "createListing", tag = "listings",
    request_body = ListingDraft,
    responses(
        (status = 201, description = "The listing as it is now", body = Listing, headers(
            ("Location", description = "Where it is read"),
            ("ETag", description = "Its version"),
            ("Consistency-Token", description = "Sent to a query, makes that see this listing"),
        )),
        (status = 409, description = "The seller has a listing with this `external_id`", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn create_listing(
    State(app): State<App>,
    Seller(caller): Seller,
    body: Draft<ListingDraft>,
) -> Result<Response, Problem> {
    let command = CreateListing::new(body.value, body.unknown)?;
    let (listing, token) = create_listing::create_listing(&app, &caller, command).await?;
    Ok(answer::created(&listing, &token))
}

/// Delete a listing
///
/// It is gone from every read, and so is its stock. Its id never comes back.
#[utoipa::path(
    delete, path = "/api/v1/listings/{id}", operation_id = "deleteListing", tag = "listings",
    params(
        ("id" = ListingId, Path),
        ("If-Match" = String, Header, description = "The version that was read, such as `\"7\"`; or `*`"),
    ),
    responses(
        (status = 204, description = "It is gone", headers(("Consistency-Token", description = "Sent to a query, makes that see it gone"))),
        (status = "default", description = "Any problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn delete_listing(
    State(app): State<App>,
    Seller(caller): Seller,
    Path(id): Path<ListingId>,
    expected: Header<IfMatch>,
) -> Result<Response, Problem> {
    let token = delete_listing::delete_listing(&app, &caller, id, expected.read()?.as_ref()).await?;
    Ok(answer::gone(&token))
}
