//! A complete HTTP response of a program, with assertions on status, problem type and headers.

use anyhow::Context as _;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A fully read response, and the request that it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Method and path of the request, for error messages.
    pub request: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub(crate) async fn read(request: String, response: reqwest::Response) -> anyhow::Result<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.with_context(|| format!("the response to {request} ended early"))?;
        Ok(Self { request, status, headers, body })
    }

    /// Fails unless the response has this status; the error shows the whole response.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(self.status.as_u16() == status, "expected {status}: {self}");
        Ok(self)
    }

    /// Fails unless the response is this problem, in the format of RFC 9457.
    pub fn expect_problem(self, status: u16, slug: &str) -> anyhow::Result<Self> {
        let answer = self.expect(status)?;
        let content_type = answer.header("content-type").unwrap_or_default();
        anyhow::ensure!(
            content_type.starts_with("application/problem+json"),
            "content type {content_type} instead of application/problem+json: {answer}"
        );
        let problem = answer.value()?;
        anyhow::ensure!(problem["type"] == format!("/problems/{slug}"), "expected {slug}: {answer}");
        anyhow::ensure!(problem["status"] == status, "the status in the problem differs from the HTTP status: {answer}");
        anyhow::ensure!(problem["title"].is_string() && problem["detail"].is_string(), "no title or detail: {answer}");
        Ok(answer)
    }

    /// Parses the body as any JSON value.
    pub fn value(&self) -> anyhow::Result<Value> {
        self.json()
    }

    /// Parses the body as a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("unexpected body: {self}"))
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the ids of the items on a page of a list or a search, in their order.
    pub fn item_ids(&self) -> anyhow::Result<Vec<String>> {
        let page = self.value()?;
        let items = page["items"].as_array().with_context(|| format!("no items: {self}"))?;
        let id = |item: &Value| item["id"].as_str().map(str::to_owned).with_context(|| format!("an item without an id: {self}"));
        items.iter().map(id).collect()
    }

    /// Returns the version in the `ETag`.
    pub fn version(&self) -> anyhow::Result<u64> {
        let etag = self.header("etag").with_context(|| format!("no ETag: {self}"))?;
        let version = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).and_then(|version| version.parse().ok());
        version.with_context(|| format!("{etag} is not a strong ETag with a version: {self}"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {} {}", self.request, self.status, self.body)
    }
}
