//! The bearer of a token, as an argument of a handler.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use uuid::Uuid;

use super::{BearerError, Verifier};
use crate::problem::Problem;

/// Whoever sent a token that was verified: its `sub`, and the names in its `roles`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBearer {
    pub id: Uuid,
    pub(super) roles: Arc<[String]>,
}

impl TokenBearer {
    /// The role names of the token. They may include names that mean nothing to this program.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }
}

/// The sender of a request, who may have no token. A token that cannot be verified is refused, not ignored: its sender expects to
/// be recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor(pub Option<TokenBearer>);

impl<S: Sync> FromRequestParts<S> for Visitor
where
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all(AUTHORIZATION).iter();
        let Some(header) = sent.next() else { return Ok(Self(None)) };
        let token = header.to_str().ok().filter(|_| sent.next().is_none()).and_then(token_of);
        let token = token.ok_or_else(|| Problem::invalid_token("Send one Authorization header, with Bearer and a token"))?;
        let bearer = Verifier::from_ref(state).verify(token).await?;
        Ok(Self(Some(bearer)))
    }
}

impl<S: Sync> FromRequestParts<S> for TokenBearer
where
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Visitor(bearer) = Visitor::from_request_parts(parts, state).await?;
        bearer.ok_or_else(|| Problem::unauthenticated("This needs a token: Authorization: Bearer …"))
    }
}

impl From<BearerError> for Problem {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Refused(why) => Self::invalid_token(format!("The token is not accepted: {why}")),
            BearerError::NoKeys => Self::unavailable("Tokens cannot be verified at the moment"),
        }
    }
}

fn token_of(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}
