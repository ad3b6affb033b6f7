//! Commands over HTTP. Handlers turn a request into a command and its outcome into an answer; rules live in the commands.

mod answer;
mod keys;
mod listings;
mod openapi;
mod seller;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use service::bearer::Verifier;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::app::App;

/// What handlers ask for.
#[derive(Clone, FromRef)]
pub struct Served {
    app: App,
    verifier: Verifier,
}

/// All routes of the public port. `jwks` is shown if we sign tokens ourselves.
pub fn routes(app: App, verifier: Verifier, jwks: Option<Value>) -> Router {
    let (routes, document) = commands().split_for_parts();
    let routes = routes.with_state(Served { app, verifier });
    Router::new()
        .merge(routes)
        .merge(openapi::routes(document))
        .merge(keys::routes(jwks))
        .merge(service::problem::pages())
        .route("/health", get(async || Json(json!({ "status": "healthy" }))))
}

/// The routes that the contract names, with their documentation.
fn commands() -> OpenApiRouter<Served> {
    OpenApiRouter::with_openapi(openapi::preamble())
        .routes(routes!(listings::create_listing).layer(service::http::deadline(crate::listings::create_listing::DEADLINE)))
        .routes(routes!(listings::delete_listing).layer(service::http::deadline(crate::listings::delete_listing::DEADLINE)))
}
