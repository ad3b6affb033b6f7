//! What the tests of several rules begin with.

use chrono::{DateTime, TimeDelta, Utc};
use events::{CausedBy, ListingId, Roles, UserId, VariantId};
use serde_json::Value;
use service::json;
use service::problem::Fault;
use uuid::Uuid;

use super::content::Content;
use super::create_listing::CreateListing;
use super::draft::ListingDraft;
use super::with_stock::{ListingWithStock, open};
use crate::actor::Actor;

pub const SELLER: UserId = UserId(Uuid::from_u128(7));

/// Creation time of the fixtures, one day before `now()`.
pub const THEN: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// The moment of the command.
pub fn now() -> DateTime<Utc> {
    THEN + TimeDelta::days(1)
}

pub fn user(user: UserId, roles: Roles) -> Actor {
    Actor { who: CausedBy::User(user), roles, correlation_id: None, trace_parent: None }
}

pub fn draft(body: &Value) -> (ListingDraft, Vec<Fault>) {
    json::read(body.to_string().as_bytes()).unwrap()
}

/// A listing of `SELLER`'s, created with this body.
pub fn a_listing(body: &Value) -> ListingWithStock {
    let (draft, unknown) = draft(body);
    let CreateListing { content, opening, .. } = CreateListing::new(draft, unknown, None).unwrap();
    open(content, &opening, ListingId::new(), SELLER, THEN, VariantId::new).0
}

pub fn content(body: &Value) -> Content {
    let (draft, unknown) = draft(body);
    Content::judge(draft, unknown).unwrap()
}

/// Where the faults are.
pub fn pointers(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| &*fault.pointer).collect()
}
