//! Request headers: reads `Consistency-Token` and `Prefer` as the writes that an answer must include.

use std::time::Duration;

use axum::extract::FromRequestParts;
use events::{ConsistencyToken, Roles};
use http::HeaderName;
use http::request::Parts;
use service::bearer::Visitor;
use service::http::{Deadline, Header, Prefer, RequestHeader};
use service::problem::Problem;

use crate::consistency::{Consistency, DEFAULT_WAIT};
use crate::visibility::Viewer;

/// The part of a route's deadline that waiting for writes leaves for the answer itself.
const RESERVED_FOR_ANSWER: Duration = Duration::from_secs(1);

struct TokenHeader(ConsistencyToken);

impl RequestHeader for TokenHeader {
    const NAME: HeaderName = HeaderName::from_static("consistency-token");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        let malformed = |what: &str| Problem::malformed(format!("The header Consistency-Token {what}"));
        let [token] = values else { return Err(malformed("must be sent once")) };
        ConsistencyToken::decode(token).map(Self).map_err(|error| malformed(&error.to_string()))
    }
}

impl<S: Sync> FromRequestParts<S> for Consistency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = Header::<TokenHeader>::of(&parts.headers).read()?;
        let prefer = Header::<Prefer>::of(&parts.headers).read()?.unwrap_or_default();
        let Some(TokenHeader(token)) = token else { return Ok(Self::default()) };
        let most = Deadline::from_request_parts(parts, state).await?.remaining().saturating_sub(RESERVED_FOR_ANSWER);
        Ok(Self::with_writes_of(token, prefer.wait.unwrap_or(DEFAULT_WAIT).min(most), prefer.stale_ok))
    }
}

impl From<Visitor> for Viewer {
    fn from(Visitor(bearer): Visitor) -> Self {
        match bearer {
            None => Self::Anyone,
            Some(bearer) if Roles::known(bearer.roles()).has_any(Roles::ADMIN) => Self::Admin,
            Some(bearer) => Self::User(bearer.id.into()),
        }
    }
}
