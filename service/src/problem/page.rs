//! The HTML page of each problem's `type`: what it means and what a client can do.

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{Kind, Problem, ProblemType};

/// `GET /problems` and `GET /problems/{slug}`. `own` are the problem types that the program declares itself.
pub fn pages<S: Clone + Send + Sync + 'static>(own: &'static [&'static ProblemType]) -> Router<S> {
    Router::new()
        .route("/problems", get(async move || list(own)))
        .route("/problems/{slug}", get(async move |Path(slug): Path<String>| page(own, &slug)))
}

fn kinds(own: &'static [&'static ProblemType]) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().chain(own.iter().map(|problem_type| Kind::Custom(problem_type)))
}

fn list(own: &'static [&'static ProblemType]) -> Html<String> {
    let items = kinds(own).map(|kind| format!("<li><a href=\"{}\">{}</a>: {}</li>", kind.uri(), kind.slug(), kind.title()));
    Html(document("Problems", &format!("<ul>\n{}\n</ul>", items.collect::<Vec<_>>().join("\n"))))
}

fn page(own: &'static [&'static ProblemType], slug: &str) -> Response {
    match kinds(own).find(|kind| kind.slug() == slug) {
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

/// An HTML document. The texts are constants; nothing of the request is shown, so that nothing has to be escaped.
fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
}
