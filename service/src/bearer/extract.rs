//! The caller as an argument of a handler.

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{BearerError, Caller, Roles, Verifier};
use crate::problem::Problem;

/// Somebody with or without a token. A bad token is refused all the same: its bearer believes to be somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor(pub Option<Caller>);

/// The roles of which a route needs one.
pub trait Needs: Send {
    const ANY_OF: Roles;
}

/// A caller with a role that the route needs: 401 without a token, 403 without the role, before anything else is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Only<N> {
    pub caller: Caller,
    needs: PhantomData<N>,
}

impl<S: Sync> FromRequestParts<S> for Visitor
where
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all(AUTHORIZATION).iter();
        let Some(header) = sent.next() else { return Ok(Self(None)) };
        let token = header.to_str().ok().filter(|_| sent.next().is_none()).and_then(token_of);
        let token = token.ok_or_else(|| Problem::invalid_token("Authorization must be, once, Bearer and a token"))?;
        let caller = Verifier::from_ref(state).verify(token).await?;
        Ok(Self(Some(caller)))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller
where
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Visitor(caller) = Visitor::from_request_parts(parts, state).await?;
        caller.ok_or_else(|| Problem::unauthenticated("This needs a token: Authorization: Bearer …"))
    }
}

impl<N: Needs, S: Sync> FromRequestParts<S> for Only<N>
where
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(N::ANY_OF)?;
        Ok(Self { caller, needs: PhantomData })
    }
}

impl From<BearerError> for Problem {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Refused(why) => Self::invalid_token(format!("The token is not accepted: {why}")),
            BearerError::NoKeys => Self::unavailable("Tokens cannot be checked at the moment"),
        }
    }
}

fn token_of(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}
