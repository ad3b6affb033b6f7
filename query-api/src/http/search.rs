//! Searches over HTTP.

use std::time::Instant;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::Uri;
use service::bearer::Visitor;
use service::http::Parameters;
use service::problem::Problem;

use super::{answer, next_page};
use crate::app::App;
use crate::consistency::Freshness;
use crate::filters::{FilterParameters, PlaceParameters};
use crate::search::{self, Search, SearchPage, SearchParameters};
use crate::visibility::IN_SEARCH;

/// Find listings
///
/// Active and public listings by words, filters, places and prices. A filter given several times means *or*; different
/// filters mean *and*. `attr.<name>=value` filters by an attribute, whose name may be in any case.
#[utoipa::path(
    get,
    path = "/listings/search",
    tag = "listings",
    params(SearchParameters, FilterParameters, PlaceParameters),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage),
        (status = 400, description = "A parameter is unknown or cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not believed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can search", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn search_listings(
    State(app): State<App>,
    _: Visitor,
    OriginalUri(asked): OriginalUri,
    parameters: Parameters,
) -> Result<Response, Problem> {
    found(&app, &asked, parameters).await
}

/// Find listings
///
/// The same as `/listings/search`.
#[utoipa::path(
    get,
    path = "/search",
    tag = "listings",
    params(SearchParameters, FilterParameters, PlaceParameters),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage),
        (status = 400, description = "A parameter is unknown or cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not believed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can search", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn search(
    State(app): State<App>,
    _: Visitor,
    OriginalUri(asked): OriginalUri,
    parameters: Parameters,
) -> Result<Response, Problem> {
    found(&app, &asked, parameters).await
}

async fn found(app: &App, asked: &Uri, parameters: Parameters) -> Result<Response, Problem> {
    let began = Instant::now();
    let search = Search::read(parameters)?;
    let found = search::search(app, &search).await?;
    app.metrics.searched.inc();
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (body, next_cursor) = found.render(took).map_err(|error| Problem::logged(&error.into()))?;
    let mut response = answer::json(body.into(), IN_SEARCH.audience(), Freshness::Fresh);
    next_page::link(response.headers_mut(), asked, next_cursor.as_deref());
    Ok(response)
}
