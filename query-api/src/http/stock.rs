//! Stock over HTTP.

use axum::extract::State;
use axum::response::Response;
use events::VariantId;
use events::stock::StockLevel;
use service::bearer::Visitor;
use service::http::{Header, IfNoneMatch, Path};
use service::problem::Problem;

use super::parameters::NoParameters;
use super::response::{self, UncacheableProblem};
use crate::app::App;
use crate::consistency::Consistency;
use crate::get_stock;

/// How many pieces of a variant are left
///
/// Visible to those who may see its listing.
#[utoipa::path(
    get,
    path = "/api/v1/variants/{id}/stock",
    tag = "stock",
    params(
        ("id" = VariantId, Path, description = "The variant's id"),
        ("If-None-Match" = Option<String>, Header, description = "Versions that the caller has, such as \"7\""),
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: accept a stale answer"),
    ),
    responses(
        (status = 200, description = "The stock", body = StockLevel, headers(
            ("ETag" = String, description = "The stock's version"),
            ("Stale" = Option<String>, description = "`?1` if the answer lacks writes that the token names")
        )),
        (status = 304, description = "The caller has this version"),
        (status = 400, description = "The id or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such variant, or the caller may not see it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store can answer in time", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []))
)]
pub async fn get_stock(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<VariantId>,
    _: NoParameters,
    consistency: Consistency,
    known: Header<IfNoneMatch>,
) -> Result<Response, UncacheableProblem> {
    let known = known.read()?;
    let shown = get_stock::get_stock(&app, visitor.into(), id, &consistency).await?;
    Ok(response::aggregate(shown, known.as_ref()))
}
