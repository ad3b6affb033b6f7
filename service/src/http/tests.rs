//! The stack as a whole, and what each extractor refuses.

use std::time::Duration;

use axum::Router;
use axum::body::{self, Body};
use axum::response::Response;
use axum::routing::{get, post};
use http::{Method, Request, StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem, PathsBuilder};
use uuid::Uuid;

use super::*;
use crate::problem::Fault;
use crate::telemetry;

#[derive(Debug, Deserialize)]
struct Book {
    title: String,
    pages: Option<u32>,
    #[serde(default)]
    shelves: Vec<Shelf>,
}

#[derive(Debug, Deserialize)]
struct Shelf {
    #[serde(rename = "room/floor")]
    room: u8,
}

#[derive(Debug, Deserialize)]
struct Filter {
    #[serde(default)]
    tag: Vec<String>,
    limit: Option<u8>,
    q: Option<String>,
}

struct MergePatch;

impl MediaTypes for MergePatch {
    const ACCEPTED: &'static [&'static str] = &["application/merge-patch+json", "application/json"];
}

struct Bench {
    registry: Registry,
    lifecycle: Lifecycle,
    routes: Router,
}

impl Bench {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("listings");
        let errors = crate::metrics::Errors::register(&mut registry, &[("http", "internal")]);
        let metrics = HttpMetrics::register(&mut registry).with_errors(errors);
        let lifecycle = Lifecycle::default();
        let routes = Router::new()
            .route(
                "/books",
                post(async |Json(book): Json<Book>| {
                    format!(
                        "{} {:?} {}",
                        book.title,
                        book.pages,
                        book.shelves.iter().map(|shelf| u32::from(shelf.room)).sum::<u32>()
                    )
                }),
            )
            .route(
                "/drafts",
                post(async |draft: Draft<Book, MergePatch>| {
                    axum::Json(json!({ "unknown": draft.unknown, "bytes": draft.bytes.len() }))
                }),
            )
            .route(
                "/find",
                get(async |Query(filter): Query<Filter>| format!("{:?} {:?} {:?}", filter.tag, filter.limit, filter.q)),
            )
            .route("/books/{id}", get(async |Path(id): Path<Uuid>| id.to_string()))
            .route("/names/{name}", get(async |Path(name): Path<String>| name))
            .route("/plain/{id}", get(async |axum::extract::Path(id): axum::extract::Path<u8>| id.to_string()))
            .route("/panic", get(async || -> String { panic!("by design of the test") }))
            .route("/slow", get(std::future::pending::<()>))
            .route("/near", get(async || std::thread::sleep(Duration::from_millis(9))))
            .route("/stuck", get(std::future::pending::<()>))
            .route("/long", get(async || "x".repeat(10_000)))
            .route("/id", get(async |id: RequestId| id.as_str().to_owned()))
            .route("/trace", get(async || telemetry::current_traceparent().unwrap_or_default()));
        let mut deadlines = Deadlines::default();
        let paths = PathsBuilder::new().path("/slow", PathItem::new(HttpMethod::Get, Operation::new())).build();
        let ((), _, ()) = deadlines.within(Duration::from_millis(20), ((), paths, ()));
        deadlines.set(Method::GET, "/near", Duration::from_millis(10));
        let routes = wrap(routes, metrics, deadlines, lifecycle.clone());
        Self { registry, lifecycle, routes }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.routes.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Response {
        self.send(Request::post(path).header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

async fn text(response: Response) -> String {
    let bytes = body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Its slug and the whole of it, after checking what must hold for each problem.
async fn problem(response: Response) -> (String, Value) {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert!(response.headers().contains_key("x-request-id"));
    let status = response.status();
    let shown: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(shown["status"], status.as_u16());
    assert!(shown["title"].is_string() && shown["detail"].is_string(), "{shown}");
    assert!(shown["instance"].as_str().unwrap().starts_with('/'), "{shown}");
    (shown["type"].as_str().unwrap().strip_prefix("/problems/").unwrap().to_owned(), shown)
}

fn pointers(shown: &Value) -> Vec<&str> {
    shown["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_and_no_new_series() {
    let bench = Bench::new();
    let (slug, shown) = problem(bench.get("/no/such%20thing").await).await;
    assert_eq!((slug.as_str(), &shown["instance"]), ("not-found", &"/no/such%20thing".into()));
    let metrics = bench.metrics();
    assert!(metrics.contains("listings_http_requests_total{method=\"GET\",path=\"<unmatched>\",status=\"404\"} 1"), "{metrics}");
    assert!(!metrics.contains("such"), "{metrics}");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let bench = Bench::new();
    let response = bench.post("/long", "text/plain", "").await;
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    assert_eq!(problem(response).await.0, "method-not-allowed");
    assert!(bench.metrics().contains("path=\"/long\",status=\"405\"} 1"));

    let invented = Request::builder().method("BREW").uri("/long").body(Body::empty()).unwrap();
    assert_eq!(bench.send(invented).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(bench.metrics().contains("method=\"OTHER\",path=\"/long\",status=\"405\"} 1"));
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let bench = Bench::new();
    let (slug, shown) = problem(bench.get("/panic").await).await;
    assert_eq!(slug, "internal");
    assert!(!shown.to_string().contains("design"), "{shown}");
    let metrics = bench.metrics();
    assert!(metrics.contains("path=\"/panic\",status=\"500\"} 1"), "{metrics}");
    assert!(metrics.contains("listings_errors_total{component=\"http\",error_type=\"internal\"} 1"), "{metrics}");
    assert!(metrics.contains("listings_http_requests_in_flight 0"), "{metrics}");
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_problem_and_counted() {
    let bench = Bench::new();
    let fresh = bench.metrics();
    for series in ["timeouts_total", "near_timeouts_total", "timeout_duration_seconds_count"] {
        assert!(fresh.contains(&format!("listings_{series}{{method=\"GET\",path=\"/slow\"}} 0")), "{fresh}");
    }
    let (slug, _) = problem(bench.get("/slow").await).await;
    assert_eq!(slug, "timeout");
    let metrics = bench.metrics();
    assert!(metrics.contains("listings_timeouts_total{method=\"GET\",path=\"/slow\"} 1"), "{metrics}");
    assert_eq!(bench.get("/near").await.status(), StatusCode::OK);
    assert_eq!(bench.send(Request::head("/slow").body(Body::empty()).unwrap()).await.status(), StatusCode::GATEWAY_TIMEOUT);
    let near = bench.metrics();
    assert!(near.contains("listings_near_timeouts_total{method=\"GET\",path=\"/near\"} 1"), "{near}");
    assert!(metrics.contains("listings_timeout_duration_seconds_count{method=\"GET\",path=\"/slow\"} 1"), "{metrics}");
    assert!(metrics.contains("listings_http_request_duration_seconds_count{method=\"GET\",path=\"/slow\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_caller_who_goes_away_is_counted_and_no_longer_in_flight() {
    let bench = Bench::new();
    let gone = tokio::time::timeout(Duration::from_millis(20), bench.get("/stuck")).await;
    assert!(gone.is_err());
    let metrics = bench.metrics();
    assert!(metrics.contains("path=\"/stuck\",status=\"499\"} 1"), "{metrics}");
    assert!(metrics.contains("listings_http_requests_in_flight 0"), "{metrics}");
}

#[tokio::test]
async fn a_request_id_is_repeated_if_it_is_fit() {
    let bench = Bench::new();
    let sent = async |id: &str| {
        let response = bench.send(Request::get("/id").header("x-request-id", id).body(Body::empty()).unwrap()).await;
        let answered = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answered, text(response).await, "the handler sees the same");
        answered
    };
    assert_eq!(sent("order-7/retry").await, "order-7/retry");
    assert_eq!(sent(&"x".repeat(128)).await.len(), 128);
    for unfit in ["", "two words", "caf\u{e9}", &"x".repeat(129)] {
        assert!(Uuid::try_parse(&sent(unfit).await).is_ok(), "{unfit:?}");
    }
}

#[tokio::test]
async fn what_handlers_do_belongs_to_the_trace_of_their_caller() {
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let bench = Bench::new();
    let sent = format!("00-{trace}-{caller}-01");
    let response = bench.send(Request::get("/trace").header("traceparent", sent).body(Body::empty()).unwrap()).await;
    let carried = text(response).await;
    assert!(carried.starts_with(&format!("00-{trace}-")) && carried.ends_with("-01"), "{carried}");
    assert!(!carried.contains(caller), "a step of its own: {carried}");
    assert_ne!(text(bench.get("/trace").await).await, text(bench.get("/trace").await).await);
}

#[tokio::test]
async fn long_answers_are_packed_and_problems_stay_whole() {
    let bench = Bench::new();
    let packed = |path: &str, how: &str| Request::get(path).header(header::ACCEPT_ENCODING, how).body(Body::empty()).unwrap();
    assert_eq!(bench.send(packed("/long", "gzip")).await.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(!bench.get("/long").await.headers().contains_key(header::CONTENT_ENCODING));
    assert_eq!(problem(bench.send(packed("/nowhere", "gzip")).await).await.0, "not-found");
    let unknown: Vec<String> = (0..50).map(|n| format!("\"unknown{n}\":1")).collect();
    let long = Request::post("/books").header(header::ACCEPT_ENCODING, "gzip").header(header::CONTENT_TYPE, "application/json");
    let long = bench.send(long.body(format!("{{\"title\":\"t\",{}}}", unknown.join(",")).into()).unwrap()).await;
    assert!(!long.headers().contains_key(header::CONTENT_ENCODING), "it would say that it is packed, and is not");
    let (slug, shown) = problem(long).await;
    assert_eq!((slug.as_str(), shown["errors"].as_array().unwrap().len()), ("invalid", 50));
    let (slug, shown) = problem(bench.send(packed("/id", "identity;q=0")).await).await;
    assert_eq!((slug.as_str(), &shown["status"]), ("malformed", &406.into()));
}

#[tokio::test]
async fn while_draining_connections_are_not_kept() {
    let bench = Bench::new();
    assert!(!bench.get("/long").await.headers().contains_key(header::CONNECTION));
    bench.lifecycle.drain();
    assert_eq!(bench.get("/long").await.headers()[header::CONNECTION], "close");
}

#[tokio::test]
async fn a_body_of_the_wrong_type_size_or_form_is_refused_in_that_order() {
    let bench = Bench::new();
    let huge = || format!("{{\"title\":\"{}\"}}", "x".repeat(BODY_LIMIT));
    assert_eq!(problem(bench.post("/books", "text/plain", huge()).await).await.0, "unsupported-media-type");
    assert_eq!(problem(bench.send(Request::post("/books").body("{}".into()).unwrap()).await).await.0, "unsupported-media-type");
    assert_eq!(problem(bench.post("/books", "application/json", huge()).await).await.0, "too-large");
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let malformed: [&[u8]; 11] = [
        b"",
        b"{",
        b"nothing",
        b"{\"title\":\"a\"} x",
        b"{\"title\":\"\xff\"}",
        b"{\"title\":\"a\",\"x\":\"\xff\"}",
        b"{\"title\":\"\\ud800\"}",
        b"{\"pages\":1e999}",
        b"{\"title\":7,",
        b"{\"title\":\"a\nb\"}",
        deep.as_bytes(),
    ];
    for body in malformed {
        let (slug, _) = problem(bench.post("/books", "application/json", body.to_vec()).await).await;
        assert_eq!(slug, "malformed", "{}", String::from_utf8_lossy(&body[..body.len().min(40)]));
    }
}

#[tokio::test]
async fn a_wrong_type_is_told_with_its_pointer() {
    let bench = Bench::new();
    let told = async |body: &str| {
        let (slug, shown) = problem(bench.post("/books", "application/json; charset=utf-8", body.to_owned()).await).await;
        assert_eq!(slug, "invalid");
        shown
    };
    let shown = told(r#"{"title":"a","pages":"many"}"#).await;
    assert_eq!(pointers(&shown), ["/pages"]);
    assert!(!shown.to_string().contains("column"), "{shown}");
    assert_eq!(pointers(&told(r#"{"title":"a","pages":-1}"#).await), ["/pages"]);
    assert_eq!(pointers(&told(r#"{"title":"a","pages":1e30}"#).await), ["/pages"]);
    assert_eq!(
        pointers(&told(r#"{"title":"a","shelves":[{"room/floor":1},{"room/floor":"b"}]}"#).await),
        ["/shelves/1/room~1floor"]
    );
    let shown = told(r#"{"title":"a","shelves":[{}]}"#).await;
    assert_eq!(shown["errors"], json!([{ "pointer": "/shelves/0/room~1floor", "detail": "is required" }]));
    assert_eq!(pointers(&told("[]").await), [""]);
    assert_eq!(pointers(&told("7").await), [""]);
}

#[tokio::test]
async fn all_unknown_members_are_told_at_once() {
    let bench = Bench::new();
    let body = r#"{"title":"a","colour":1,"shelves":[{"room/floor":1,"a~b":{"deep":[]}}]}"#;
    let (_, shown) = problem(bench.post("/books", "application/ld+json", body).await).await;
    assert_eq!(pointers(&shown), ["/colour", "/shelves/0/a~0b"]);

    let response = bench.post("/drafts", "Application/Merge-Patch+JSON", body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let shown: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((shown["unknown"].as_array().unwrap().len(), &shown["bytes"]), (2, &body.len().into()));
    assert_eq!(problem(bench.post("/drafts", "application/ld+json", body).await).await.0, "unsupported-media-type");
}

#[tokio::test]
async fn a_query_is_read_strictly() {
    let bench = Bench::new();
    let found = async |query: &str| text(bench.get(&format!("/find?{query}")).await).await;
    assert_eq!(found("tag=a&tag=b%20c&tag=d+e&limit=5").await, r#"["a", "b c", "d e"] Some(5) None"#);
    assert_eq!(found("q=100%&q2".trim_end_matches("&q2")).await, r#"[] None Some("100%")"#);
    assert_eq!(found("").await, "[] None None");
    assert_eq!(found("&&tag=x&").await, r#"["x"] None None"#);
    assert_eq!(found("limit=&q=").await, "[] None Some(\"\")", "nothing is no number, but it is a text");
    assert_eq!(found("q=a%26b%3Dc").await, r#"[] None Some("a&b=c")"#);
    for query in [
        "colour=red",
        "limit=many",
        "limit=-1",
        "limit=256",
        "limit=1&limit=2",
        "q=%00",
        "%00=1",
        "q=%ff",
        "q=a%C3",
        "limit=5;drop",
    ] {
        assert_eq!(problem(bench.get(&format!("/find?{query}")).await).await.0, "malformed", "{query}");
    }
    let (_, shown) = problem(bench.get("/find?limit=many").await).await;
    assert!(shown["detail"].as_str().unwrap().contains("limit"), "{shown}");
}

#[test]
fn parameters_without_fixed_names_are_taken_out_first() {
    let mut parameters = Parameters::parse("attr.color=red&limit=3&attr.shoe+size=42").unwrap();
    let attributes = parameters.take_prefixed("attr.");
    assert_eq!(attributes, [("color".to_owned(), "red".to_owned()), ("shoe size".to_owned(), "42".to_owned())]);
    assert_eq!(parameters.read::<Filter>().unwrap().limit, Some(3));
}

#[tokio::test]
async fn a_path_is_read_strictly() {
    let bench = Bench::new();
    assert_eq!(text(bench.get("/names/caf%C3%A9").await).await, "caf\u{e9}");
    for path in ["/books/7", "/books/%27%20or%201=1", "/books/%00", "/names/a%00b", "/names/%ff"] {
        assert_eq!(problem(bench.get(path).await).await.0, "malformed", "{path}");
    }
}

#[tokio::test]
async fn what_the_framework_says_in_plain_text_becomes_a_problem() {
    let bench = Bench::new();
    let (slug, shown) = problem(bench.get("/plain/many").await).await;
    assert_eq!(slug, "malformed");
    assert!(shown["detail"].as_str().unwrap().contains("many"), "{shown}");
}

#[test]
fn a_header_is_parsed_when_it_is_asked_for() {
    let mut headers = http::HeaderMap::new();
    assert_eq!(Header::<IfMatch>::of(&headers).read().unwrap(), None);
    assert_eq!(Header::<IfMatch>::of(&headers).require().unwrap_err().kind, Kind::PreconditionRequired);
    headers.insert(header::IF_MATCH, "7".parse().unwrap());
    assert_eq!(Header::<IfMatch>::of(&headers).read().unwrap_err().kind, Kind::Malformed);
    headers.insert(header::IF_MATCH, http::HeaderValue::from_bytes(b"\"\xff\"").unwrap());
    assert_eq!(Header::<IfMatch>::of(&headers).read().unwrap_err().kind, Kind::Malformed);
    headers.insert(header::IF_MATCH, "\"7\"".parse().unwrap());
    assert_eq!(Header::<IfMatch>::of(&headers).require().unwrap().versions(), Some(vec![7]));
}

#[test]
fn one_fault_is_its_own_detail() {
    let problem = Problem::invalid(vec![Fault::new("/title", "is required")]);
    assert_eq!(problem.detail, "/title: is required");
    assert_eq!(Problem::invalid(vec![Fault::new("", "is empty")]).detail, "is empty");
}
