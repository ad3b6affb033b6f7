//! Headers of requests, read when it is their turn.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::problem::{Kind, Problem};

/// Longer request ids than this are somebody's mistake or mischief, and we make one of our own.
const REQUEST_ID_LIMIT: usize = 128;
const UNREADABLE: HeaderValue = HeaderValue::from_static("unreadable");

/// A header that a handler understands.
pub trait RequestHeader: Sized {
    const NAME: HeaderName;

    /// Reads all values of the header, at least one. Whatever cannot be read is `malformed`.
    fn parse(values: &[&str]) -> Result<Self, Problem>;
}

/// A header as it came. It is parsed when the handler asks for it, because the contract checks the body's content type
/// and size before the headers: `let key = key.read()?;`.
#[derive(Debug, Clone)]
pub struct Header<H> {
    values: Vec<HeaderValue>,
    header: PhantomData<fn() -> H>,
}

impl<H: RequestHeader> Header<H> {
    /// `None` if it was not sent; `malformed` if it cannot be read.
    pub fn read(&self) -> Result<Option<H>, Problem> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let text = |value: &HeaderValue| value.to_str().map(str::to_owned);
        let values: Result<Vec<String>, _> = self.values.iter().map(text).collect();
        let values = values.map_err(|_| malformed(&H::NAME, "has characters that a header cannot have"))?;
        let values: Vec<&str> = values.iter().map(|value| value.trim()).collect();
        H::parse(&values).map(Some)
    }

    /// The header, or the problem `precondition-required`.
    pub fn require(&self) -> Result<H, Problem> {
        self.read()?.ok_or_else(|| Problem::new(Kind::PreconditionRequired, format!("{} is required here", H::NAME)))
    }
}

impl<H: RequestHeader, S: Sync> FromRequestParts<S> for Header<H> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

impl<H: RequestHeader> Header<H> {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self { values: headers.get_all(H::NAME).iter().cloned().collect(), header: PhantomData }
    }
}

pub(super) fn malformed(name: &HeaderName, what: &str) -> Problem {
    Problem::malformed(format!("The header {name} {what}"))
}

/// The caller's name for the request, or ours if it sent none that we would repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub const NAME: HeaderName = HeaderName::from_static("x-request-id");

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(Self::NAME).filter(|sent| sent.to_str().is_ok_and(is_fit));
        Self(sent.cloned().unwrap_or_else(|| {
            let mut text = Uuid::encode_buffer();
            let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(id).unwrap_or(UNREADABLE)
        }))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_fit(sent: &str) -> bool {
    (1..=REQUEST_ID_LIMIT).contains(&sent.len()) && sent.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}
