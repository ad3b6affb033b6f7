//! The OpenAPI document, made from the handlers, and a page to browse it.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Listings: commands", description = "The write side of the marketplace.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags((name = "listings", description = "What sellers offer"), (name = "inventory", description = "How many pieces there are"))
)]
struct Document;

/// What stands before the routes: title, and that all of them need a token.
pub fn preamble() -> OpenApi {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

/// `/openapi.json` and `/docs`.
pub fn routes(document: OpenApi) -> Router {
    Router::new()
        .route("/openapi.json", get(async move || Json(document)))
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")))
}
