//! Searches over HTTP.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::Uri;
use service::bearer::Visitor;
use service::http::Parameters;
use service::problem::Problem;

use super::answer::{self, Refused};
use super::next_page;
use crate::app::App;
use crate::consistency::Consistency;
use crate::filters::{FilterParameters, PlaceParameters};
use crate::search::shared::Answer;
use crate::search::{self, Search, SearchPage, SearchParameters};
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
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: an old answer will do"),
    ),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if it does not have what the token names")
        )),
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
    consistency: Consistency,
) -> Result<Response, Refused> {
    found(&app, &asked, parameters, &consistency).await
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
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: an old answer will do"),
    ),
    responses(
        (status = 200, description = "A page of what was found", body = SearchPage, headers(
            ("Link" = Option<String>, description = "The next page, `rel=\"next\"`"),
            ("Stale" = Option<String>, description = "`?1` if it does not have what the token names")
        )),
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
    consistency: Consistency,
) -> Result<Response, Refused> {
    found(&app, &asked, parameters, &consistency).await
}

async fn found(app: &App, asked: &Uri, parameters: Parameters, consistency: &Consistency) -> Result<Response, Refused> {
    // On the heap: it holds what each store is asked, and would be moved about.
    let look = Box::pin(look(app, parameters, consistency));
    let found = if consistency.entries().is_empty() {
        app.answers.get(asked.query().unwrap_or_default(), look).await?
    } else {
        look.await?
    };
    app.metrics.searched.inc();
    let mut response = answer::json(found.body.clone(), IN_SEARCH.audience(), found.freshness);
    next_page::link(response.headers_mut(), asked, found.next_cursor.as_deref());
    Ok(response)
}

async fn look(app: &App, parameters: Parameters, consistency: &Consistency) -> Result<Arc<Answer>, Problem> {
    let began = Instant::now();
    let search = Search::read(parameters)?;
    let (found, freshness) = search::search(app, &search, consistency).await?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (body, next_cursor) = found.render(took_ms).map_err(|error| Problem::logged(&error.into()))?;
    Ok(Arc::new(Answer { body: body.into(), next_cursor, freshness }))
}
