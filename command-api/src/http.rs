//! Commands over HTTP. Handlers turn a request into a command and its outcome into an answer; rules live in the commands.

mod answer;
mod batch;
mod inventory;
mod jwks;
mod listings;
mod openapi;
mod seller;

use axum::extract::{DefaultBodyLimit, FromRef};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use service::bearer::Verifier;
use service::http::{Deadlines, HttpMetrics};
use service::lifecycle::Lifecycle;
use service::problem::ProblemType;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::app::App;
use crate::inventory::{INSUFFICIENT_STOCK, record_movement, set_stock};
use crate::listings::{change_status, create_batch, create_listing, delete_listing, replace_listing};

/// The problem types that commands add to those of every program; each has a page.
static OWN_PROBLEMS: &[&ProblemType] = &[&INSUFFICIENT_STOCK];

/// What handlers ask for.
#[derive(Clone, FromRef)]
pub struct Served {
    app: App,
    verifier: Verifier,
}

/// All routes of the public port, their middleware around them. `jwks` is shown if we sign tokens ourselves.
pub fn routes(app: App, verifier: Verifier, jwks: Option<Value>, metrics: HttpMetrics, lifecycle: Lifecycle) -> Router {
    let mut deadlines = Deadlines::default();
    let (routes, document) = commands(&mut deadlines).split_for_parts();
    let routes = Router::new()
        .merge(routes.with_state(Served { app, verifier }))
        .merge(openapi::routes(document))
        .merge(jwks::routes(jwks))
        .merge(service::problem::pages(OWN_PROBLEMS))
        .route("/health", get(async || Json(json!({ "status": "healthy" }))));
    service::http::wrap(routes, metrics, deadlines, lifecycle)
}

/// The routes that the contract names, with their documentation, each within its deadline.
fn commands(deadlines: &mut Deadlines) -> OpenApiRouter<Served> {
    let batches = routes!(batch::create_listings).layer(DefaultBodyLimit::max(batch::BATCH));
    OpenApiRouter::with_openapi(openapi::preamble())
        .routes(deadlines.within(create_listing::DEADLINE, routes!(listings::create_listing)))
        .routes(deadlines.within(replace_listing::DEADLINE, routes!(listings::replace_listing, listings::patch_listing)))
        .routes(deadlines.within(delete_listing::DEADLINE, routes!(listings::delete_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(listings::publish_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(listings::pause_listing)))
        .routes(deadlines.within(change_status::DEADLINE, routes!(listings::archive_listing)))
        .routes(deadlines.within(create_batch::DEADLINE, batches))
        .routes(deadlines.within(set_stock::DEADLINE, routes!(inventory::set_stock)))
        .routes(deadlines.within(record_movement::DEADLINE, routes!(inventory::record_movement)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn every_documented_route_has_a_deadline() {
        let mut deadlines = Deadlines::default();
        let document = commands(&mut deadlines).into_openapi();
        let mut routes = 0;
        for (path, item) in document.paths.paths {
            assert!(item.get.is_none(), "{path} only writes");
            let documented =
                [(Method::POST, item.post), (Method::PUT, item.put), (Method::PATCH, item.patch), (Method::DELETE, item.delete)];
            for (method, _) in documented.into_iter().filter(|(_, operation)| operation.is_some()) {
                assert!(deadlines.own(&method, &path).is_some(), "{method} {path}");
                routes += 1;
            }
        }
        assert!(routes > 0);
    }
}
