//! Commands on listings: body → command → call → answer.

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use events::{Listing, ListingId};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::Value;
use service::http::{Deadlines, Draft, Header, IdempotencyKey, IfMatch, MediaTypes, Path};
use service::problem::Problem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::handler::{Seller, answer, expected, scope, state};
use super::{Noun, Served, batch};
use crate::command::{CommandApp, Expected};
use crate::listings::change_status::{self, ChangeStatus, StatusVerb};
use crate::listings::create_batch;
use crate::listings::create_listing::{self, CreateListing};
use crate::listings::delete_listing::{self, DeleteListing};
use crate::listings::draft::ListingDraft;
use crate::listings::patch_listing::{self, PatchListing};
use crate::listings::replace_listing::{self, ReplaceListing};

pub const NOUN: Noun = Noun {
    tag: "listings",
    description: "What sellers offer",
    routes,
    operations: &[
        create_listing::OPERATION,
        create_listing::OPERATION_ONCE,
        create_batch::OPERATION,
        replace_listing::OPERATION,
        patch_listing::OPERATION,
        change_status::OPERATION,
        delete_listing::OPERATION,
    ],
    problems: &[],
};

fn routes(deadlines: &mut Deadlines) -> OpenApiRouter<Served> {
    let batches = routes!(batch::create_listings).layer(DefaultBodyLimit::max(batch::BATCH));
    OpenApiRouter::new()
        .routes(deadlines.within(create_listing::DEADLINE, routes!(create_listing)))
        .routes(deadlines.within(replace_listing::DEADLINE, routes!(replace_listing)))
        .routes(deadlines.within(patch_listing::DEADLINE, routes!(patch_listing)))
        .routes(deadlines.within(delete_listing::DEADLINE, routes!(delete_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(publish_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(pause_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(archive_listing)))
        .routes(deadlines.within(create_batch::DEADLINE, batches))
}

/// The content types of a `PATCH`.
pub struct MergePatch;

impl MediaTypes for MergePatch {
    const ACCEPTED: &'static [&'static str] = &["application/merge-patch+json", "application/json"];
}

/// Create a listing
///
/// Active at once unless `status` says `draft`. Every variant gets a stock; `stock` sets that of the only one.
#[utoipa::path(
    post, path = "/api/v1/listings", operation_id = "createListing", tag = "listings",
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with the same key gives the first answer; kept 24 hours")),
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
    State(app): State<CommandApp>,
    seller: Seller,
    key: Header<IdempotencyKey>,
    body: Draft<ListingDraft>,
) -> Result<Response, Problem> {
    let scope = scope(&key, seller.user, "POST /api/v1/listings", &body.bytes)?;
    let command = CreateListing::new(body.value, body.unknown, scope)?;
    let outcome = create_listing::create_listing(&app, &seller.actor, &command).await?;
    let place = format!("/api/v1/listings/{}", outcome.answer.id);
    Ok(([(LOCATION, place)], state(StatusCode::CREATED, &outcome, &outcome.answer)).into_response())
}

/// Replace a listing
///
/// A listing that was read can be sent back: what the server sets is passed over. Absent `variants` stay as they are.
#[utoipa::path(
    put, path = "/api/v1/listings/{id}", operation_id = "replaceListing", tag = "listings",
    params(
        ("id" = ListingId, Path),
        ("If-Match" = String, Header, description = "The version that was read, such as `\"7\"`; or `*`"),
    ),
    request_body = ListingDraft,
    responses(
        (status = 200, description = "The listing as it is now; at the same version if nothing changed", body = Listing, headers(
            ("ETag", description = "Its version"),
            ("Consistency-Token", description = "Sent to a query, makes that see this change"),
        )),
        (status = "default", description = "Any problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn replace_listing(
    State(app): State<CommandApp>,
    seller: Seller,
    Path(id): Path<ListingId>,
    if_match: Header<IfMatch>,
    body: Draft<ListingDraft>,
) -> Result<Response, Problem> {
    let command = ReplaceListing::new(id, expected(&if_match)?, body.value, body.unknown)?;
    let outcome = replace_listing::replace_listing(&app, &seller.actor, &command).await?;
    Ok(state(StatusCode::OK, &outcome, &outcome.answer))
}

/// Change parts of a listing
///
/// A JSON merge patch (RFC 7396): members that are not named stay, `null` sets what a new listing would have. Arrays are
/// replaced as a whole.
#[utoipa::path(
    patch, path = "/api/v1/listings/{id}", operation_id = "patchListing", tag = "listings",
    params(
        ("id" = ListingId, Path),
        ("If-Match" = String, Header, description = "The version that was read, such as `\"7\"`; or `*`"),
    ),
    request_body(
        content((Value = "application/merge-patch+json"), (Value = "application/json")),
        description = "Any members of a `ListingDraft`",
    ),
    responses(
        (status = 200, description = "The listing as it is now; at the same version if nothing changed", body = Listing, headers(
            ("ETag", description = "Its version"),
            ("Consistency-Token", description = "Sent to a query, makes that see this change"),
        )),
        (status = "default", description = "Any problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn patch_listing(
    State(app): State<CommandApp>,
    seller: Seller,
    Path(id): Path<ListingId>,
    if_match: Header<IfMatch>,
    body: Draft<Value, MergePatch>,
) -> Result<Response, Problem> {
    let command = PatchListing::new(id, expected(&if_match)?, body.value)?;
    let outcome = patch_listing::patch_listing(&app, &seller.actor, &command).await?;
    Ok(state(StatusCode::OK, &outcome, &outcome.answer))
}

/// Status verbs need no body. One that comes all the same belongs to the request that an `Idempotency-Key` names.
pub struct AnyBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = BytesRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, BytesRejection> {
        Bytes::from_request(request, state).await.map(Self)
    }
}

macro_rules! status_verb {
    ($(#[doc = $doc:literal])* $name:ident, $path:literal, $operation:literal, $verb:expr) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            post, path = $path, operation_id = $operation, tag = "listings",
            params(
                ("id" = ListingId, Path),
                ("If-Match" = String, Header, description = "The version that was read, such as `\"7\"`; or `*`"),
                ("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with the same key gives the first answer; kept 24 hours"),
            ),
            responses(
                (status = 200, description = "The listing as it is now", body = Listing, headers(
                    ("ETag", description = "Its version"),
                    ("Consistency-Token", description = "Sent to a query, makes that see this change"),
                )),
                (status = 409, description = "Its status does not allow it", body = Problem, content_type = "application/problem+json"),
                (status = "default", description = "Any other problem", body = Problem, content_type = "application/problem+json"),
            ),
        )]
        pub async fn $name(
            State(app): State<CommandApp>,
            seller: Seller,
            Path(id): Path<ListingId>,
            if_match: Header<IfMatch>,
            key: Header<IdempotencyKey>,
            AnyBody(body): AnyBody,
        ) -> Result<Response, Problem> {
            let operation = format!("POST /api/v1/listings/{id}/{}", $verb.as_str());
            let scope = scope(&key, seller.user, operation, &body)?;
            let command = ChangeStatus { listing: id, verb: $verb, expected: expected(&if_match)?, scope };
            let outcome = change_status::change_status(&app, &seller.actor, &command).await?;
            Ok(state(StatusCode::OK, &outcome, &outcome.answer))
        }
    };
}

status_verb! {
    /// Put a listing on sale
    ///
    /// From draft or paused to active.
    publish_listing, "/api/v1/listings/{id}/publish", "publishListing", StatusVerb::Publish
}

status_verb! {
    /// Take a listing off for a while
    ///
    /// From active to paused.
    pause_listing, "/api/v1/listings/{id}/pause", "pauseListing", StatusVerb::Pause
}

status_verb! {
    /// Take a listing off for good
    ///
    /// From any other status to archived, which is final.
    archive_listing, "/api/v1/listings/{id}/archive", "archiveListing", StatusVerb::Archive
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
    State(app): State<CommandApp>,
    seller: Seller,
    Path(id): Path<ListingId>,
    if_match: Header<IfMatch>,
) -> Result<Response, Problem> {
    let command = DeleteListing { listing: id, expected: Expected::required(expected(&if_match)?)? };
    let outcome = delete_listing::delete_listing(&app, &seller.actor, &command).await?;
    Ok(answer(StatusCode::NO_CONTENT, &outcome))
}
