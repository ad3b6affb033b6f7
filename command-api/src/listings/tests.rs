//! What the tests of several rules begin with.

use chrono::{DateTime, TimeDelta, Utc};
use events::{ListingId, Roles, UserId, VariantId};
use serde_json::Value;
use service::http::read_json;
use service::problem::Fault;
use uuid::Uuid;

use super::content::Content;
use super::create_listing::{CreateListing, open};
use super::draft::ListingDraft;
use super::held::Held;
use crate::caller::Caller;

pub const SELLER: UserId = UserId(Uuid::from_u128(7));

/// A moment for what happened before.
pub const THEN: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// The moment of the command.
pub fn now() -> DateTime<Utc> {
    THEN + TimeDelta::days(1)
}

pub fn caller(user: UserId, roles: Roles) -> Caller {
    Caller { user, roles, correlation_id: None, trace_parent: None }
}

pub fn draft(json: &Value) -> (ListingDraft, Vec<Fault>) {
    read_json(json.to_string().as_bytes()).unwrap()
}

/// A listing of `SELLER`'s, opened with this body.
pub fn a_listing(json: &Value) -> Held {
    let (draft, unknown) = draft(json);
    let command = CreateListing::new(draft, unknown).unwrap();
    open(command, ListingId::new(), SELLER, THEN, VariantId::new).0
}

pub fn content(json: &Value) -> Content {
    let (draft, unknown) = draft(json);
    Content::judge(draft, unknown).unwrap()
}

/// Where the faults are.
pub fn pointers(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| &*fault.pointer).collect()
}
