//! Request headers, which handlers parse when the contract's order of checks wants it.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::problem::{Kind, Problem};

/// The longest request id that is taken from a client, in bytes. A longer one is replaced by one of ours.
const REQUEST_ID_LIMIT: usize = 128;
/// Never used: a UUID is always a valid header value.
const UNREADABLE: HeaderValue = HeaderValue::from_static("unreadable");

/// A header with a parser.
pub trait RequestHeader: Sized {
    const NAME: HeaderName;

    /// Parses all values of the header; there is at least one. An error is `malformed`.
    fn parse(values: &[&str]) -> Result<Self, Problem>;
}

/// A header that is not parsed yet. The handler parses it, `let key = key.read()?;`, because the contract checks the body's content type
/// and size before the headers.
#[derive(Debug, Clone)]
pub struct Header<H> {
    values: Vec<HeaderValue>,
    header: PhantomData<fn() -> H>,
}

impl<H: RequestHeader> Header<H> {
    /// Parses the header. `None` if it was not sent; `malformed` if it cannot be parsed.
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

    /// Parses the header. If it was not sent, the problem is `precondition-required`.
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

/// The id of a request: the client's `X-Request-Id`, or a new one if it sent none that is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub const NAME: HeaderName = HeaderName::from_static("x-request-id");

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(Self::NAME).filter(|sent| sent.to_str().is_ok_and(is_valid));
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

fn is_valid(sent: &str) -> bool {
    (1..=REQUEST_ID_LIMIT).contains(&sent.len()) && sent.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}
