//! The public half of the key that signs our tokens, for all who verify them.

use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use serde_json::Value;

/// Verifiers ask again by themselves when they meet a key they do not know.
const KEPT_FOR: &str = "public, max-age=300";

pub fn routes(jwks: Option<Value>) -> Router {
    let Some(jwks) = jwks else { return Router::new() };
    Router::new().route("/.well-known/jwks.json", get(async move || ([(CACHE_CONTROL, KEPT_FOR)], Json(jwks))))
}
