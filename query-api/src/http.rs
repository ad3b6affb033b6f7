//! Questions over HTTP: the routes, their document, and how answers say who may keep them.

mod answer;
mod listings;
mod next_page;
mod parameters;
mod search;
mod stock;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use service::http::Deadlines;
use service::lifecycle::Lifecycle;
use service::problem;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;

/// How long each route may take.
const GET: Duration = Duration::from_secs(5);
const SEARCH: Duration = Duration::from_secs(8);
const LIST: Duration = Duration::from_secs(5);
const STOCK: Duration = Duration::from_secs(3);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Listings: queries",
        description = "Reads and searches of the marketplace. Answers come from projections, moments behind the commands; \
                       a Consistency-Token makes a query wait for what its bearer has written."
    ),
    modifiers(&Bearer),
    components(schemas(problem::Problem))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// Every route, its middleware around it.
pub fn routes(app: App, lifecycle: Lifecycle) -> Router {
    let metrics = app.metrics.http.clone();
    let mut deadlines = Deadlines::default();
    let (api, document) = api(&mut deadlines).with_state::<()>(app).split_for_parts();
    let router = api
        .route("/health", get(async || ([("content-type", "application/json")], r#"{"status":"healthy"}"#)))
        .merge(problem::pages(&[]))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document));
    service::http::wrap(router, metrics, deadlines, lifecycle)
}

fn api(deadlines: &mut Deadlines) -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(deadlines.within(GET, routes!(listings::get_listing)))
        .routes(deadlines.within(SEARCH, routes!(search::search_listings)))
        .routes(deadlines.within(SEARCH, routes!(search::search)))
        .routes(deadlines.within(LIST, routes!(listings::list_listings)))
        .routes(deadlines.within(STOCK, routes!(stock::get_stock)))
}

/// The OpenAPI document that `/openapi.json` serves.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    api(&mut Deadlines::default()).into_openapi()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_document_refers_to_nothing_that_it_lacks() {
        let document = serde_json::to_value(document()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or_default();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_documented_route_has_a_deadline() {
        let mut deadlines = Deadlines::default();
        let document = api(&mut deadlines).into_openapi();
        assert!(!document.paths.paths.is_empty());
        for (path, item) in document.paths.paths {
            assert!(item.get.is_some(), "{path} only reads");
            assert!(deadlines.own(&http::Method::GET, &path).is_some(), "{path}");
        }
    }
}
