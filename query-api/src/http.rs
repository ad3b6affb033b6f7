//! The HTTP transport: routes, their OpenAPI document, parameters and headers, responses. The rest of the program does not know HTTP.

mod headers;
mod listings;
mod parameters;
mod response;
mod search;
mod search_cache;
mod search_page;
mod stock;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use service::bearer::Verifier;
use service::http::Deadlines;
use service::lifecycle::Lifecycle;
use service::problem;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use self::search_cache::SearchCache;
use crate::app::App;

/// The deadline of each route.
const GET: Duration = Duration::from_secs(5);
const SEARCH: Duration = Duration::from_secs(8);
const LIST: Duration = Duration::from_secs(5);
const STOCK: Duration = Duration::from_secs(3);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Listings: queries",
        description = "Reads and searches of the marketplace. Answers come from projections, which lag behind commands by moments; \
                       a query with a Consistency-Token waits until the writes that it names are visible."
    ),
    modifiers(&BearerScheme),
    components(schemas(problem::Problem))
)]
struct OpenApiDocument;

struct BearerScheme;

impl utoipa::Modify for BearerScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The state of handlers.
#[derive(Clone, FromRef)]
struct HttpState {
    app: App,
    searches: Arc<SearchCache>,
    verifier: Verifier,
}

/// All routes, with their middleware.
pub fn routes(app: App, lifecycle: Lifecycle) -> Router {
    let metrics = app.metrics.http.clone();
    let mut deadlines = Deadlines::default();
    let searches = Arc::new(SearchCache::new(app.metrics.answers.clone()));
    let state = HttpState { verifier: app.verifier.clone(), searches, app };
    let (api, document) = api(&mut deadlines).with_state::<()>(state).split_for_parts();
    let router = api
        .route("/health", get(async || ([("content-type", "application/json")], r#"{"status":"healthy"}"#)))
        .merge(problem::pages(&[]))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document));
    service::http::wrap(router, metrics, deadlines, lifecycle)
}

fn api(deadlines: &mut Deadlines) -> OpenApiRouter<HttpState> {
    OpenApiRouter::with_openapi(OpenApiDocument::openapi())
        .routes(deadlines.within(GET, routes!(listings::get_listing)))
        .routes(deadlines.within(SEARCH, routes!(search::search_listings)))
        .routes(deadlines.within(SEARCH, routes!(search::search)))
        .routes(deadlines.within(LIST, routes!(listings::list_listings)))
        .routes(deadlines.within(STOCK, routes!(stock::get_stock)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let document = serde_json::to_value(api(&mut Deadlines::default()).into_openapi()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or_default();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    /// Other transports must be able to ask the same questions, so the code outside of this folder must not know HTTP.
    #[test]
    fn only_this_folder_knows_http() {
        /// The files that put the program together.
        const BOOTSTRAP: [&str; 5] = ["main.rs", "serve.rs", "settings.rs", "app.rs", "metrics.rs"];
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![src.clone()];
        let mut checked = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() && name != "http" {
                    folders.push(path);
                } else if path.is_file() && name != "http.rs" && !BOOTSTRAP.contains(&name.as_str()) {
                    let text = std::fs::read_to_string(path).unwrap();
                    let found = text.lines().find(|line| knows_http(line));
                    assert_eq!(found, None, "in {name}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 20, "{checked} files");
    }

    /// Whether a line names something of HTTP, or of a crate that is made for it.
    fn knows_http(line: &str) -> bool {
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let is_about_http = |word| ["axum", "IntoParams", "Problem", "Parameters", "HttpMetrics"].contains(&word);
        // `opensearch::http` is the client of a store.
        words.into_iter().any(is_about_http)
            || line.match_indices("http::").any(|(at, _)| {
                let path = line[..at].rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':').next();
                !path.unwrap_or_default().ends_with("opensearch::")
            })
    }

    #[test]
    fn a_line_that_knows_http_is_found() {
        for line in [
            "use axum::Router;",
            "use http::HeaderValue;",
            "use service::http::ETag;",
            "use service::{http::ETag, clock};",
            "use crate::http::SearchCache;",
            "use service::problem::{Kind, Problem};",
            "    async fn list(parameters: Parameters) {",
        ] {
            assert!(knows_http(line), "{line}");
        }
        for line in ["use opensearch::http::StatusCode;", "use service::problem::{Kind, Refusal};", "/// See https://example.org"]
        {
            assert!(!knows_http(line), "{line}");
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
