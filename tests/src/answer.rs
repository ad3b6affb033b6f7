//! What a program answers to a request.

use anyhow::Context as _;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An answer that was read whole, and the question it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    pub asked: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub(crate) async fn read(asked: String, response: reqwest::Response) -> anyhow::Result<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.with_context(|| format!("the answer to {asked} broke off"))?;
        Ok(Self { asked, status, headers, body })
    }

    /// Refuses any other status, and tells what was answered instead.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(self.status.as_u16() == status, "expected {status}: {self}");
        Ok(self)
    }

    /// Refuses anything but this problem, served as RFC 9457 says.
    pub fn expect_problem(self, status: u16, slug: &str) -> anyhow::Result<Self> {
        let answer = self.expect(status)?;
        let content_type = answer.header("content-type").unwrap_or_default();
        anyhow::ensure!(content_type.starts_with("application/problem+json"), "{content_type} is no problem: {answer}");
        let problem = answer.value()?;
        anyhow::ensure!(problem["type"] == format!("/problems/{slug}"), "expected {slug}: {answer}");
        anyhow::ensure!(problem["status"] == status, "the problem states another status: {answer}");
        anyhow::ensure!(problem["title"].is_string() && problem["detail"].is_string(), "no title or detail: {answer}");
        Ok(answer)
    }

    pub fn value(&self) -> anyhow::Result<Value> {
        self.json()
    }

    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("unexpected body: {self}"))
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The version in the `ETag`.
    pub fn version(&self) -> anyhow::Result<u64> {
        let etag = self.header("etag").with_context(|| format!("no ETag: {self}"))?;
        let version = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).and_then(|version| version.parse().ok());
        version.with_context(|| format!("{etag} is no strong ETag of a version: {self}"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {} {}", self.asked, self.status, self.body)
    }
}
