//! Listings over HTTP.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use events::{Listing, ListingId};
use serde::Serialize;
use service::bearer::Visitor;
use service::http::{Header, IfNoneMatch, Parameters, Path};
use service::problem::Problem;
use utoipa::ToSchema;

use super::parameters::{FilterParameters, ListParameters, NoParameters, list_question};
use super::response::{self, UncacheableProblem};
use crate::app::App;
use crate::consistency::Consistency;
use crate::{get_listing, list_listings};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListingPage {
    items: Vec<Listing>,
    /// Continues after the last item; null when there are no more.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// One listing
///
/// Everyone sees active and sold listings that are not private; only the seller and admins see others.
#[utoipa::path(
    get,
    path = "/api/v1/listings/{id}",
    tag = "listings",
    params(
        ("id" = ListingId, Path, description = "The listing's id"),
        ("If-None-Match" = Option<String>, Header, description = "Versions that the caller has, such as \"7\""),
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: accept a stale answer"),
    ),
    responses(
        (status = 200, description = "The listing", body = Listing, headers(
            ("ETag" = String, description = "The listing's version"),
            ("Stale" = Option<String>, description = "`?1` if the answer lacks writes that the token names")
        )),
        (status = 304, description = "The caller has this version"),
        (status = 400, description = "The id or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such listing, or the caller may not see it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can answer in time", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn get_listing(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ListingId>,
    _: NoParameters,
    consistency: Consistency,
    known: Header<IfNoneMatch>,
) -> Result<Response, UncacheableProblem> {
    let known = known.read()?;
    let shown = get_listing::get_listing(&app, visitor.into(), id, &consistency).await?;
    Ok(response::aggregate(shown, known.as_ref()))
}

/// Listings
///
/// Those that are active and public, newest first. Sellers who filter by their own `seller_id` see all of their
/// listings, whatever the status and visibility; admins who filter by any `seller_id` see all of that seller's.
#[utoipa::path(
    get,
    path = "/api/v1/listings",
    tag = "listings",
    params(
        FilterParameters,
        ListParameters,
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: accept a stale answer"),
    ),
    responses(
        (status = 200, description = "A page of listings", body = ListingPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if the answer lacks writes that the token names")
        )),
        (status = 400, description = "A parameter or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can answer in time", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn list_listings(
    State(app): State<App>,
    visitor: Visitor,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    consistency: Consistency,
) -> Result<Response, UncacheableProblem> {
    let question = list_question(parameters, visitor.into())?;
    let found = list_listings::list_listings(&app, &question, &consistency).await?;
    let unwritable = |error: serde_json::Error| Problem::logged(&error.into());
    let next_cursor = found.next.map(|cursor| cursor.encode()).transpose().map_err(unwritable)?;
    let page = ListingPage { items: found.listings, next_cursor };
    let body = serde_json::to_vec(&page).map_err(unwritable)?;
    let mut response = response::json(body.into(), found.audience, found.freshness);
    response::link_next_page(response.headers_mut(), &uri, page.next_cursor.as_deref());
    Ok(response)
}
