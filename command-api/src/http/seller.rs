//! Who calls, as commands want to know it.

use axum::extract::FromRequestParts;
use events::{Roles, UserId};
use http::request::Parts;
use service::bearer::TokenBearer;
use service::http::RequestId;
use service::problem::Problem;
use service::telemetry::current_traceparent;

use super::Served;
use crate::caller::{Caller, SELLERS};

/// A caller who may write listings: 401 without a token, 403 without the role, before anything else is looked at. Then 400 for a query:
/// no command has parameters in its address, and one that is passed over may have been meant as a condition.
pub struct Seller(pub Caller);

impl FromRequestParts<Served> for Seller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Served) -> Result<Self, Problem> {
        let bearer = TokenBearer::from_request_parts(parts, state).await?;
        let roles = Roles::known(bearer.roles());
        if !roles.has_any(SELLERS) {
            return Err(Problem::forbidden(format!("This needs one of the roles {SELLERS}")));
        }
        if parts.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Problem::malformed("Commands take no query parameters"));
        }
        let Ok(request) = RequestId::from_request_parts(parts, state).await;
        Ok(Self(Caller {
            user: UserId(bearer.id),
            roles,
            correlation_id: Some(request.as_str().to_owned()),
            trace_parent: current_traceparent(),
        }))
    }
}
