//! `If-Match`: a change is meant for the version that its author has seen.

use service::http::{ETag, IfMatch};

use crate::refusal::Refused;

/// Listings are not changed unseen.
pub fn require(expected: Option<&IfMatch>) -> Result<(), Refused> {
    expected.map(|_| ()).ok_or(Refused::PreconditionMissing)
}

/// Refuses if the version is not (or no longer) one that the caller named.
pub fn check(expected: Option<&IfMatch>, current: u64) -> Result<(), Refused> {
    match expected {
        Some(expected) if !expected.allows(&ETag::of(current)) => Err(Refused::VersionMismatch { current }),
        Some(_) | None => Ok(()),
    }
}
