//! The page behind every problem's `type`: what it means and what a caller can do.

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{Kind, Problem};

/// `GET /problems` and `GET /problems/{slug}`, for people who followed a problem's `type`.
pub fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/problems", get(list)).route("/problems/{slug}", get(page))
}

async fn list() -> Html<String> {
    let items = Kind::ALL.iter().map(|kind| format!("<li><a href=\"{}\">{}</a>: {}</li>", kind.uri(), kind.slug(), kind.title()));
    Html(document("Problems", &format!("<ul>\n{}\n</ul>", items.collect::<Vec<_>>().join("\n"))))
}

async fn page(Path(slug): Path<String>) -> Response {
    match Kind::ALL.iter().find(|kind| kind.slug() == slug) {
        Some(kind) => Html(document(
            kind.title(),
            &format!(
                "<p><code>{}</code>, HTTP {}</p>\n<p>{}</p>\n<p><a href=\"/problems\">All problems</a></p>",
                kind.slug(),
                kind.http_status(),
                kind.advice()
            ),
        ))
        .into_response(),
        None => Problem::not_found("There is no such problem").into_response(),
    }
}

/// Only texts of our own come in here: nothing of the request is shown.
fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
}
