//! Searches over HTTP.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::Uri;
use service::bearer::Visitor;
use service::http::Parameters;
use service::problem::Problem;

use super::parameters::{FilterParameters, PlaceParameters, SearchParameters, search_question};
use super::response::{self, UncacheableProblem};
use super::search_cache::{SearchCache, SearchResponse};
use super::search_page::{SearchPage, render};
use crate::app::App;
use crate::consistency::Consistency;
use crate::cursor::Cursor;
use crate::search;
use crate::visibility::IN_SEARCH;

/// Find listings
///
/// Active and public listings by words, filters, places and prices. A filter given several times means *or*; different
/// filters mean *and*. `attr.<name>=value` filters by an attribute, whose name may be in any case.
#[utoipa::path(
    get,
    path = "/api/v1/listings/search",
    tag = "listings",
    params(
        SearchParameters,
        FilterParameters,
        PlaceParameters,
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: accept a stale answer"),
    ),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if the answer lacks writes that the token names")
        )),
        (status = 400, description = "A parameter is unknown or cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can answer in time", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn search_listings(
    State(app): State<App>,
    State(searches): State<Arc<SearchCache>>,
    _: Visitor,
    OriginalUri(requested): OriginalUri,
    parameters: Parameters,
    consistency: Consistency,
) -> Result<Response, UncacheableProblem> {
    respond(&app, &searches, &requested, parameters, &consistency).await
}

/// Find listings
///
/// The same as `/listings/search`.
#[utoipa::path(
    get,
    path = "/api/v1/search",
    tag = "listings",
    params(
        SearchParameters,
        FilterParameters,
        PlaceParameters,
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: accept a stale answer"),
    ),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if the answer lacks writes that the token names")
        )),
        (status = 400, description = "A parameter is unknown or cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can answer in time", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn search(
    State(app): State<App>,
    State(searches): State<Arc<SearchCache>>,
    _: Visitor,
    OriginalUri(requested): OriginalUri,
    parameters: Parameters,
    consistency: Consistency,
) -> Result<Response, UncacheableProblem> {
    respond(&app, &searches, &requested, parameters, &consistency).await
}

async fn respond(
    app: &App,
    searches: &SearchCache,
    requested: &Uri,
    parameters: Parameters,
    consistency: &Consistency,
) -> Result<Response, UncacheableProblem> {
    // On the heap: the future is large, because it includes the calls of each store, and would be moved several times.
    let search = Box::pin(search_and_render(app, parameters, consistency));
    let found = if consistency.entries().is_empty() {
        searches.get(requested.query().unwrap_or_default(), search).await?
    } else {
        search.await?
    };
    app.metrics.searched.inc();
    let mut response = response::json(found.body.clone(), IN_SEARCH.audience(), found.freshness);
    response::link_next_page(response.headers_mut(), requested, found.next_cursor.as_deref());
    Ok(response)
}

async fn search_and_render(app: &App, parameters: Parameters, consistency: &Consistency) -> Result<Arc<SearchResponse>, Problem> {
    let began = Instant::now();
    let question = search_question(parameters)?;
    let found = search::search(app, &question, consistency).await?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let freshness = found.freshness;
    let unwritable = |error: serde_json::Error| Problem::logged(&error.into());
    let next_cursor = found.next.as_ref().map(Cursor::encode).transpose().map_err(unwritable)?;
    let body = render(found, next_cursor.clone(), took_ms).map_err(unwritable)?;
    Ok(Arc::new(SearchResponse { body: body.into(), next_cursor, freshness }))
}
