//! Commands over HTTP. Handlers turn a request into a command and its outcome into an answer; rules live in the commands.

mod answer;
mod batch;
mod inventory;
mod jwks;
mod listings;
mod openapi;
mod seller;

use std::convert::Infallible;

use axum::extract::{DefaultBodyLimit, FromRef};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use service::bearer::Verifier;
use service::http::deadline;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::app::App;
use crate::inventory::{record_movement, set_stock};
use crate::listings::{change_status, create_batch, create_listing, delete_listing, replace_listing};

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
        .merge(jwks::routes(jwks))
        .merge(service::problem::pages())
        .route("/health", get(async || Json(json!({ "status": "healthy" }))))
}

/// The routes that the contract names, with their documentation, each within its deadline.
fn commands() -> OpenApiRouter<Served> {
    let changes = OpenApiRouter::with_openapi(openapi::preamble())
        .routes(routes!(listings::create_listing).layer(deadline(create_listing::DEADLINE)))
        .routes(routes!(listings::replace_listing, listings::patch_listing).layer(deadline(replace_listing::DEADLINE)))
        .routes(routes!(listings::delete_listing).layer(deadline(delete_listing::DEADLINE)))
        .routes(routes!(listings::publish_listing).layer(deadline(change_status::DEADLINE)))
        .routes(routes!(listings::pause_listing).layer(deadline(change_status::DEADLINE)))
        .routes(routes!(listings::archive_listing).layer(deadline(change_status::DEADLINE)));
    let batches = routes!(batch::create_listings).layer::<_, Infallible>(deadline(create_batch::DEADLINE));
    changes
        .routes(batches.layer(DefaultBodyLimit::max(batch::BATCH)))
        .routes(routes!(inventory::set_stock).layer(deadline(set_stock::DEADLINE)))
        .routes(routes!(inventory::record_movement).layer(deadline(record_movement::DEADLINE)))
}
