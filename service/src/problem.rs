//! The answer to a request that is refused or fails: RFC 9457 problem details.
//!
//! An error that implements [`Refusal`] becomes a [`Problem`] by its [`Kind`]. An internal failure is logged here, once, and never
//! shown to the client. The middleware of [`crate::http`] adds `instance` and `trace_id`.

mod kind;
mod page;
mod refusal;

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::{PartialSchema, ToSchema};

pub use kind::{Kind, ProblemType};
pub use page::pages;
pub use refusal::{Chain, Refusal};

/// The media type of a problem.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The default of `Retry-After`.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// The most faults in one answer. All faults are reported at once, but the answer should not be longer than the body.
pub const FAULTS_LIMIT: usize = 1000;

/// One fault of a body: where (an RFC 6901 pointer, `""` for the whole body) and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Fault {
    #[schema(example = "/price/amount")]
    pub pointer: String,
    #[schema(example = "must be a decimal string")]
    pub detail: String,
}

impl Fault {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a problem does nothing until it is answered"]
pub struct Problem {
    pub kind: Kind,
    pub detail: Cow<'static, str>,
    pub errors: Vec<Fault>,
    pub retry_after: Option<Duration>,
    /// The value of `WWW-Authenticate`.
    challenge: Option<&'static str>,
    /// Set only if the transport's status is more precise than that of the kind, such as 431.
    status: Option<StatusCode>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = kind.asks_to_retry().then_some(RETRY_SOON);
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after, challenge: kind.challenge(), status: None }
    }

    /// 400: JSON, query, path, cursor or header cannot be parsed.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// 422: the request was parsed, but breaks these rules.
    pub fn invalid(mut errors: Vec<Fault>) -> Self {
        let detail: Cow<'static, str> = match errors.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone().into(),
            [only] => format!("{}: {}", only.pointer, only.detail).into(),
            several if several.len() > FAULTS_LIMIT => format!("The request breaks more than {FAULTS_LIMIT} rules").into(),
            several => format!("The request breaks {} rules", several.len()).into(),
        };
        errors.truncate(FAULTS_LIMIT);
        Self::new(Kind::Invalid, detail).with_errors(errors)
    }

    /// 401: the request has no token.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unauthenticated, detail)
    }

    /// 401: the token was not verified (RFC 6750).
    pub fn invalid_token(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { challenge: Some("Bearer error=\"invalid_token\""), ..Self::new(Kind::Unauthenticated, detail) }
    }

    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 503: a dependency is down; the client should retry later.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    /// 500, without any detail of the failure. Log it, see [`Problem::logged`].
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "Something went wrong on our side; the trace id finds it in our logs")
    }

    /// 500 for a failure that no [`Refusal`] describes. Logs it with its sources.
    pub fn logged(error: &anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "A request failed: {error}");
        Self::internal()
    }

    pub fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.errors = errors;
        self
    }

    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The problem nearest to a plain status of another layer; `None` if the status is not an error.
    pub(crate) fn of_status(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Option<Self> {
        let kind = Kind::of_status(status)?;
        let status = (kind.http_status() != status).then_some(status);
        let problem = if kind == Kind::Internal { Self::internal() } else { Self::new(kind, detail) };
        Some(Self { status, ..problem })
    }

    #[must_use]
    pub fn http_status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.kind.http_status())
    }

    /// The body without `instance` and `trace_id`, as it is shown for one line of a batch.
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        Body {
            r#type: self.kind.uri(),
            title: self.kind.title(),
            status: self.http_status().as_u16(),
            detail: &self.detail,
            instance: None,
            trace_id: None,
            errors: &self.errors,
        }
    }

    pub(crate) fn respond(self, instance: Option<&str>, trace_id: Option<&str>) -> Response {
        let body = Body { instance, trace_id, ..self.body() };
        let mut response = (self.http_status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        // Without it, caches may store a 404 for any time.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: a retry that is too early would be refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(None, None)
    }
}

/// The JSON document of a problem.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    /// Which problem it is; a page that this server serves.
    #[schema(example = "/problems/invalid")]
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// Finds the request in logs and traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    /// What is wrong with the body, all of it at once.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.body().serialize(serializer)
    }
}

impl PartialSchema for Problem {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Body::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        schemas.push((Fault::name().into_owned(), Fault::schema()));
    }
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi;

    use super::*;

    #[derive(OpenApi)]
    #[openapi(components(schemas(Problem)))]
    struct OpenApiDocument;

    #[test]
    fn the_schema_is_the_body() {
        let schemas = serde_json::to_value(OpenApiDocument::openapi()).unwrap()["components"]["schemas"].clone();
        let described = &schemas["Problem"]["properties"];
        let full = Problem::invalid(vec![Fault::new("/a", "b")]);
        let shown = Body { instance: Some("/x"), trace_id: Some("t"), ..full.body() };
        for name in serde_json::to_value(shown).unwrap().as_object().unwrap().keys() {
            assert!(described[name].is_object(), "{name} in {schemas}");
        }
        assert!(schemas["Fault"]["properties"]["pointer"].is_object(), "{schemas}");
    }

    #[test]
    fn headers_say_when_and_how_to_come_back() {
        let header =
            |problem: Problem, name| problem.into_response().headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header(Problem::unavailable("away"), RETRY_AFTER).as_deref(), Some("1"));
        let soon = Problem::new(Kind::RateLimited, "slower").with_retry_after(Duration::from_millis(1500));
        assert_eq!(header(soon, RETRY_AFTER).as_deref(), Some("2"), "never too early");
        assert_eq!(header(Problem::conflict("no"), RETRY_AFTER), None);
        assert_eq!(header(Problem::unauthenticated("who"), WWW_AUTHENTICATE).as_deref(), Some("Bearer"));
        assert_eq!(header(Problem::not_found("gone"), CACHE_CONTROL).as_deref(), Some("no-store"));
    }
}
