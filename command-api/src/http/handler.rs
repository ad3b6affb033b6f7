//! What all handlers share: what they read from a request, and the answer that they make of an outcome.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use events::{Aggregate, CausedBy, Roles, UserId};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use service::bearer::TokenBearer;
use service::http::{ETag, Header, IdempotencyKey, IfMatch, RequestId};
use service::problem::Problem;
use service::telemetry::current_traceparent;

use super::Served;
use crate::actor::Actor;
use crate::command::{CommandOutcome, Effect, Expected};
use crate::idempotency::IdempotencyScope;

/// A query that is sent this token shows what was written.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// The command was done before, and this is the answer that it had.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A user who may write listings: 401 without a token, 403 without the role, before anything else is checked. Then 400 for a query:
/// no command has parameters in its address, and one that is ignored may have been meant as a condition.
pub struct Seller {
    pub user: UserId,
    pub actor: Actor,
}

impl FromRequestParts<Served> for Seller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Served) -> Result<Self, Problem> {
        let bearer = TokenBearer::from_request_parts(parts, state).await?;
        let user = UserId(bearer.id);
        let Ok(request) = RequestId::from_request_parts(parts, state).await;
        let actor = Actor {
            who: CausedBy::User(user),
            roles: Roles::known(bearer.roles()),
            correlation_id: Some(request.as_str().to_owned()),
            trace_parent: current_traceparent(),
        };
        actor.must_be_seller()?;
        if parts.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Problem::malformed("Commands take no query parameters"));
        }
        Ok(Self { user, actor })
    }
}

/// The versions that `If-Match` names; `None` if it was not sent.
pub fn expected(header: &Header<IfMatch>) -> Result<Option<Expected>, Problem> {
    let expected = |header: IfMatch| header.versions().map_or(Expected::Any, Expected::Versions);
    Ok(header.read()?.map(expected))
}

/// The scope of an `Idempotency-Key`; `None` if it was not sent. `operation` is method and path with its ids.
pub fn scope(
    header: &Header<IdempotencyKey>,
    user: UserId,
    operation: impl Into<String>,
    body: &[u8],
) -> Result<Option<IdempotencyScope>, Problem> {
    Ok(header.read()?.map(|key| IdempotencyScope::new(user, operation, key.as_str(), body)))
}

/// The answer that shows an aggregate as the command left it: `shown`, with the aggregate's version as `ETag`.
pub fn state<A: Aggregate>(status: StatusCode, outcome: &CommandOutcome<A>, shown: impl Serialize) -> Response {
    answer((status, ETag::of(outcome.answer.version()), axum::Json(shown)), outcome)
}

/// The answer with the headers that every outcome has.
pub fn answer<T>(response: impl IntoResponse, outcome: &CommandOutcome<T>) -> Response {
    let mut response = response.into_response();
    // A token is base64: it is always a valid header value.
    if let Ok(token) = HeaderValue::from_str(&outcome.token.encode()) {
        response.headers_mut().insert(CONSISTENCY_TOKEN, token);
    }
    if outcome.effect == Effect::Replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("?1"));
    }
    response
}
