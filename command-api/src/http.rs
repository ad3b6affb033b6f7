//! Commands over HTTP. Handlers turn a request into a command and its outcome into an answer; rules live in the commands.

mod batch;
mod documents;
mod handler;
mod inventory;
mod listings;

use std::sync::LazyLock;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use service::bearer::Verifier;
use service::http::{Deadlines, HttpMetrics};
use service::lifecycle::Lifecycle;
use service::problem::ProblemType;
use utoipa_axum::router::OpenApiRouter;

use crate::command::CommandApp;

/// The nouns that have commands. A new noun adds its line here; everything that must know all of them iterates over this list.
const NOUNS: [Noun; 2] = [listings::NOUN, inventory::NOUN];

/// What a noun contributes to the program.
struct Noun {
    /// The tag of its routes in the OpenAPI document.
    tag: &'static str,
    description: &'static str,
    /// Its routes, each within its deadline.
    routes: fn(&mut Deadlines) -> OpenApiRouter<Served>,
    /// The names under which the durations of its transactions are measured.
    operations: &'static [&'static str],
    /// The problem types that it adds to those of every program. Each has a page.
    problems: &'static [&'static ProblemType],
}

static PROBLEMS: LazyLock<Vec<&'static ProblemType>> =
    LazyLock::new(|| NOUNS.iter().flat_map(|noun| noun.problems).copied().collect());

/// The state of handlers.
#[derive(Clone, FromRef)]
pub struct Served {
    app: CommandApp,
    verifier: Verifier,
}

/// The names under which the durations of transactions are measured, of all nouns.
pub fn operations() -> Vec<&'static str> {
    NOUNS.iter().flat_map(|noun| noun.operations).copied().collect()
}

/// All routes of the public port, with their middleware. `jwks` is the public key of a program that signs tokens itself.
pub fn routes(app: CommandApp, verifier: Verifier, jwks: Option<Value>, metrics: HttpMetrics, lifecycle: Lifecycle) -> Router {
    let mut deadlines = Deadlines::default();
    let (routes, document) = commands(&mut deadlines).split_for_parts();
    let routes = Router::new()
        .merge(routes.with_state(Served { app, verifier }))
        .merge(documents::routes(document, jwks))
        .merge(service::problem::pages(&PROBLEMS))
        .route("/health", get(async || Json(json!({ "status": "healthy" }))));
    service::http::wrap(routes, metrics, deadlines, lifecycle)
}

/// The routes of the contract with their documentation, each within its deadline.
fn commands(deadlines: &mut Deadlines) -> OpenApiRouter<Served> {
    let none = OpenApiRouter::with_openapi(documents::preamble(&NOUNS));
    NOUNS.iter().fold(none, |routes, noun| routes.merge((noun.routes)(deadlines)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

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

    /// Where requests enter, and the programs around the commands.
    const TRANSPORTS: [&str; 8] = ["http", "http.rs", "grpc", "grpc.rs", "main.rs", "serve.rs", "cli.rs", "import"];
    const OF_A_TRANSPORT: [&str; 8] = ["axum", "http::", "reqwest", "tonic", "Problem", "IfMatch", "ETag", "StatusCode"];

    fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let file = path.file_name().unwrap().to_str().unwrap();
            if TRANSPORTS.contains(&file) || TRANSPORTS.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                sources(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }

    /// Whether a line of code names something of a transport, as a whole word. Comments and texts may.
    fn names_a_transport(line: &str) -> Option<&'static str> {
        let code: String = line.split('"').step_by(2).collect();
        let code = code.split("//").next().unwrap_or_default();
        let in_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        OF_A_TRANSPORT.into_iter().find(|word| {
            code.match_indices(word).any(|(at, _)| {
                let after = &code[at + word.len()..];
                !code[..at].ends_with(in_word) && (word.ends_with(':') || !after.starts_with(in_word))
            })
        })
    }

    #[test]
    fn no_use_case_knows_a_transport() {
        assert_eq!(names_a_transport("use service::http::ETag;"), Some("http::"));
        assert_eq!(names_a_transport("fn refuse() -> Problem {"), Some("Problem"));
        assert_eq!(names_a_transport("let error = \"send an ETag\";"), None);
        assert_eq!(names_a_transport("use service::problem::{Kind, ProblemType}; // not a Problem"), None);
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        assert!(files.iter().any(|(path, _)| path.ends_with("listings/create_listing.rs")), "{files:?}");
        for (path, text) in files {
            for line in text.lines() {
                assert_eq!(names_a_transport(line), None, "{}: {line}", path.display());
            }
        }
    }
}
