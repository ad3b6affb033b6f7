//! Commands on listings: body → command → call → answer.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use events::{Listing, ListingId};
use serde_json::Value;
use service::http::{Draft, Header, IdempotencyKey, IfMatch, MediaTypes, Path};
use service::problem::Problem;

use super::answer;
use super::seller::Seller;
use crate::app::App;
use crate::caller::Caller;
use crate::idempotency::Keyed;
use crate::listings::change_status::{ChangeStatus, Verb, change_status};
use crate::listings::create_listing::{self, CreateListing};
use crate::listings::delete_listing;
use crate::listings::draft::ListingDraft;
use crate::listings::patch_listing::{self, Patch};
use crate::listings::replace_listing;

/// What a `PATCH` may call itself.
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
    State(app): State<App>,
    Seller(caller): Seller,
    key: Header<IdempotencyKey>,
    body: Draft<ListingDraft>,
) -> Result<Response, Problem> {
    let key = key.read()?;
    let command = CreateListing::new(body.value, body.unknown)?;
    let keyed = key.map(|key| Keyed::new(caller.user, "POST /api/v1/listings", &key, &body.bytes));
    let done = create_listing::create_listing(&app, &caller, command, keyed.as_ref()).await?;
    Ok(answer::created(&done))
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
    State(app): State<App>,
    Seller(caller): Seller,
    Path(id): Path<ListingId>,
    expected: Header<IfMatch>,
    body: Draft<ListingDraft>,
) -> Result<Response, Problem> {
    let expected = expected.read()?;
    let content = replace_listing::judge(body.value, body.unknown)?;
    let done = replace_listing::replace_listing(&app, &caller, id, expected.as_ref(), content).await?;
    Ok(answer::listing(&done))
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
    State(app): State<App>,
    Seller(caller): Seller,
    Path(id): Path<ListingId>,
    expected: Header<IfMatch>,
    body: Draft<Value, MergePatch>,
) -> Result<Response, Problem> {
    let expected = expected.read()?;
    let patch = Patch::new(body.value)?;
    let done = patch_listing::patch_listing(&app, &caller, id, expected.as_ref(), &patch).await?;
    Ok(answer::listing(&done))
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
            State(app): State<App>,
            Seller(caller): Seller,
            Path(id): Path<ListingId>,
            expected: Header<IfMatch>,
            key: Header<IdempotencyKey>,
            AnyBody(body): AnyBody,
        ) -> Result<Response, Problem> {
            set_status(&app, &caller, id, $verb, &expected, &key, &body).await
        }
    };
}

status_verb! {
    /// Put a listing on sale
    ///
    /// From draft or paused to active.
    publish_listing, "/api/v1/listings/{id}/publish", "publishListing", Verb::Publish
}

status_verb! {
    /// Take a listing off for a while
    ///
    /// From active to paused.
    pause_listing, "/api/v1/listings/{id}/pause", "pauseListing", Verb::Pause
}

status_verb! {
    /// Take a listing off for good
    ///
    /// From any other status to archived, which is final.
    archive_listing, "/api/v1/listings/{id}/archive", "archiveListing", Verb::Archive
}

async fn set_status(
    app: &App,
    caller: &Caller,
    listing: ListingId,
    verb: Verb,
    expected: &Header<IfMatch>,
    key: &Header<IdempotencyKey>,
    body: &Bytes,
) -> Result<Response, Problem> {
    let route = format!("POST /api/v1/listings/{listing}/{}", verb.as_str());
    let keyed = key.read()?.map(|key| Keyed::new(caller.user, route, &key, body));
    let command = ChangeStatus { listing, verb, expected: expected.read()?, keyed };
    let done = change_status(app, caller, &command).await?;
    Ok(answer::listing(&done))
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
