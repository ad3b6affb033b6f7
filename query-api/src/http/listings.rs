//! Listings over HTTP.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use events::{Listing, ListingId};
use service::bearer::Visitor;
use service::http::{ETag, Header, IfNoneMatch, Parameters, Path};
use service::problem::Problem;

use super::answer::{self, Refused};
use super::next_page;
use super::parameters::NoParameters;
use crate::app::App;
use crate::consistency::Consistency;
use crate::filters::FilterParameters;
use crate::get_listing::{self, GetListingError};
use crate::list_listings::{self, List, ListParameters, ListingPage};

/// One listing
///
/// Active and sold listings that are not private are for everyone; the rest is for the seller and for admins.
#[utoipa::path(
    get,
    path = "/api/v1/listings/{id}",
    tag = "listings",
    params(
        ("id" = ListingId, Path, description = "The listing's id"),
        ("If-None-Match" = Option<String>, Header, description = "Versions that the caller has, such as \"7\""),
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: an old answer will do"),
    ),
    responses(
        (status = 200, description = "The listing", body = Listing, headers(
            ("ETag" = String, description = "The listing's version"),
            ("Stale" = Option<String>, description = "`?1` if it does not have what the token names")
        )),
        (status = 304, description = "The caller has this version"),
        (status = 400, description = "The id or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not believed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such listing, or not for the caller", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store has it in time", body = Problem, content_type = "application/problem+json"),
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
) -> Result<Response, Refused> {
    let known = known.read()?;
    let shown = get_listing::get_listing(&app, visitor.into(), id, &consistency).await?;
    let page = shown.page().ok_or(GetListingError::NoListing(id))?;
    let etag = page.etag.clone();
    if known.is_some_and(|known| known.has(&ETag::of(page.version))) {
        return Ok(answer::not_modified(etag, shown.audience, shown.freshness));
    }
    Ok(answer::versioned(page.body.clone(), etag, shown.audience, shown.freshness))
}

/// Listings
///
/// Those that are active and public, newest first. Whoever names themself as `seller_id` sees all of their own, whatever
/// their status and visibility; admins see all of anyone's.
#[utoipa::path(
    get,
    path = "/api/v1/listings",
    tag = "listings",
    params(
        FilterParameters,
        ListParameters,
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: an old answer will do"),
    ),
    responses(
        (status = 200, description = "A page of listings", body = ListingPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if it does not have what the token names")
        )),
        (status = 400, description = "A parameter or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not believed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Lists cannot be had at the moment", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn list_listings(
    State(app): State<App>,
    visitor: Visitor,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    consistency: Consistency,
) -> Result<Response, Refused> {
    let list = List::read(parameters, visitor.into())?;
    let shown = list_listings::list_listings(&app, &list, &consistency).await?;
    let body = serde_json::to_vec(&shown.page).map_err(|error| Problem::logged(&error.into()))?;
    let mut response = answer::json(body.into(), shown.audience, shown.freshness);
    next_page::link(response.headers_mut(), &uri, shown.page.next_cursor.as_deref());
    Ok(response)
}
