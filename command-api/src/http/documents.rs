//! Documents for clients: the OpenAPI document, which is made from the handlers, a page to browse it, and the key set that verifies our
//! tokens.

use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use serde_json::Value;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::Noun;

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Listings: commands",
    description = "The write side of the marketplace.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct CommandsDocument;

/// Clients fetch the key set again by themselves when a token names a key that they do not know.
const JWKS_CACHED: &str = "public, max-age=300";

/// The name of the security scheme. It is the same in the document of query-api.
const SCHEME: &str = "bearer";

/// The document without routes: title, tags of the nouns, and that all routes need a token.
pub fn preamble(nouns: &[Noun]) -> OpenApi {
    let mut document = CommandsDocument::openapi();
    let tag = |noun: &Noun| TagBuilder::new().name(noun.tag).description(Some(noun.description)).build();
    document.tags = Some(nouns.iter().map(tag).collect());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document.components.get_or_insert_default().add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
    document
}

/// `/openapi.json` and `/docs`; and the key set if this program signs tokens itself.
pub fn routes(document: OpenApi, jwks: Option<Value>) -> Router {
    let routes = Router::new()
        .route("/openapi.json", get(async move || Json(document)))
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
    let Some(jwks) = jwks else { return routes };
    routes.route("/.well-known/jwks.json", get(async move || ([(CACHE_CONTROL, JWKS_CACHED)], Json(jwks))))
}
