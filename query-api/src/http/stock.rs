//! Stock over HTTP.

use axum::extract::State;
use axum::response::Response;
use events::VariantId;
use events::stock::StockLevel;
use service::bearer::Visitor;
use service::http::{ETag, Header, IfNoneMatch, Path};
use service::problem::Problem;

use super::answer::{self, Refused};
use super::parameters::NoParameters;
use crate::app::App;
use crate::consistency::Consistency;
use crate::get_stock;

/// How many pieces of a variant are left
///
/// Visible as its listing is.
#[utoipa::path(
    get,
    path = "/api/v1/variants/{id}/stock",
    tag = "stock",
    params(
        ("id" = VariantId, Path, description = "The variant's id"),
        ("If-None-Match" = Option<String>, Header, description = "Versions that the caller has, such as \"7\""),
        ("Consistency-Token" = Option<String>, Header, description = "Waits until the writes that it names are visible"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: for how many seconds to wait; `stale-ok`: an old answer will do"),
    ),
    responses(
        (status = 200, description = "The stock", body = StockLevel, headers(
            ("ETag" = String, description = "The stock's version"),
            ("Stale" = Option<String>, description = "`?1` if it does not have what the token names")
        )),
        (status = 304, description = "The caller has this version"),
        (status = 400, description = "The id or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is not believed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such variant, or not for the caller", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No store has it in time", body = Problem, content_type = "application/problem+json"),
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
) -> Result<Response, Refused> {
    let known = known.read()?;
    let shown = get_stock::get_stock(&app, visitor.into(), id, &consistency).await?;
    let etag = ETag::of(shown.version);
    if known.is_some_and(|known| known.has(&etag)) {
        return Ok(answer::not_modified(etag.header(), shown.audience, shown.freshness));
    }
    Ok(answer::versioned(shown.body, etag.header(), shown.audience, shown.freshness))
}
