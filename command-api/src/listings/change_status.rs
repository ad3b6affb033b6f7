//! Publishes, pauses and archives a listing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::listing::{Listing, ListingChange, Status};
use events::{AggregateKey, ListingId};
use http::StatusCode;
use service::http::IfMatch;
use service::problem::{Kind, Refusal};
use sqlx::PgConnection;
use tracing::info;

use super::rows::lock_listing;
use crate::app::App;
use crate::caller::Caller;
use crate::idempotency::{self, Keyed};
use crate::journal::{self, Facts};
use crate::outcome::Done;
use crate::precondition;
use crate::refusal::{Refused, Repeatable};
use crate::transaction;

/// How long a client waits for a change of a listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Publish,
    Pause,
    Archive,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Pause => "pause",
            Self::Archive => "archive",
        }
    }
}

pub struct ChangeStatus {
    pub listing: ListingId,
    pub verb: Verb,
    pub expected: Option<IfMatch>,
    pub keyed: Option<Keyed>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeStatusRefused {
    #[error("A listing that is {from} does not take {}", verb.as_str())]
    NotFrom { from: Status, verb: Verb },
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal for ChangeStatusRefused {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFrom { .. } => Kind::Conflict,
            Self::Refused(refused) => refused.kind(),
        }
    }
}

impl Repeatable for ChangeStatusRefused {
    fn lost_race(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.lost_race())
    }
}

pub async fn change_status(app: &App, caller: &Caller, command: &ChangeStatus) -> Result<Done<Listing>, ChangeStatusRefused> {
    let change = transaction::repeated(|| attempt(app, caller, command));
    let done = app.metrics.queries.time("change_status", change).await?;
    if !done.replayed {
        app.wake.ring();
        app.metrics.updated.inc();
        let (listing, status) = (done.state.id, done.state.status);
        info!(listing.id = %listing, listing.status = %status, "Listing {listing} is {status} now");
    }
    Ok(done)
}

/// Lock, decide, write: one transaction.
async fn attempt(app: &App, caller: &Caller, command: &ChangeStatus) -> Result<Done<Listing>, ChangeStatusRefused> {
    let mut tx = app.database.begin(DEADLINE).await.map_err(Refused::from)?;
    let outcome = decide_and_write(&mut tx, caller, command, app.clock.now()).await;
    transaction::end(tx, outcome).await
}

async fn decide_and_write(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &ChangeStatus,
    now: DateTime<Utc>,
) -> Result<Done<Listing>, ChangeStatusRefused> {
    let keyed = command.keyed.as_ref();
    if let Some(first) = idempotency::first_answer(tx, keyed).await? {
        return Ok(first);
    }
    precondition::require(command.expected.as_ref())?;
    let listing = lock_listing(tx, command.listing).await?.ok_or(Refused::NotFound)?;
    caller.must_own(&listing)?;
    precondition::check(command.expected.as_ref(), listing.version)?;
    let (listing, change) = decide(listing, command.verb, now)?;

    let mut facts = Facts::default();
    facts.listing(change, listing.clone());
    let token = facts.token();
    journal::write(tx, &facts, caller, now).await?;
    idempotency::keep(tx, keyed, StatusCode::OK, (AggregateKey::listing(listing.id), listing.version), &token).await?;
    Ok(Done::now(listing, token))
}

fn decide(listing: Listing, verb: Verb, now: DateTime<Utc>) -> Result<(Listing, ListingChange), ChangeStatusRefused> {
    let (status, change) = match (verb, listing.status) {
        (Verb::Publish, Status::Draft | Status::Paused) => (Status::Active, ListingChange::Published {}),
        (Verb::Pause, Status::Active) => (Status::Paused, ListingChange::Paused {}),
        (Verb::Archive, Status::Draft | Status::Active | Status::Paused | Status::Sold) => {
            (Status::Archived, ListingChange::Archived {})
        }
        (verb, from) => return Err(ChangeStatusRefused::NotFrom { from, verb }),
    };
    let published_at = listing.published_at.or_else(|| (status == Status::Active).then(|| now.into()));
    let updated_at = listing.updated_at.max(now.into());
    let listing = Listing { status, version: listing.version + 1, updated_at, published_at, ..listing };
    Ok((listing, change))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::listings::tests::{a_listing, now};

    fn after(verb: Verb, from: Status) -> Option<Status> {
        let listing = Listing { status: from, ..a_listing(&json!({ "title": "t", "price": { "amount": "1" } })).listing };
        decide(listing, verb, now()).ok().map(|(listing, _)| listing.status)
    }

    #[test]
    fn the_table_of_the_contract() {
        use Status::{Active, Archived, Draft, Paused, Sold};
        for (verb, allowed, to) in [
            (Verb::Publish, vec![Draft, Paused], Active),
            (Verb::Pause, vec![Active], Paused),
            (Verb::Archive, vec![Draft, Active, Paused, Sold], Archived),
        ] {
            for &from in Status::ALL {
                let expected = allowed.contains(&from).then_some(to);
                assert_eq!(after(verb, from), expected, "{} from {from}", verb.as_str());
            }
        }
    }

    #[test]
    fn a_draft_is_published_once_and_then_keeps_its_date() {
        let draft = a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "status": "draft" })).listing;
        assert_eq!(draft.published_at, None);
        let (active, _) = decide(draft, Verb::Publish, now()).unwrap();
        assert_eq!((active.published_at, active.version), (Some(now().into()), 2));
        let later = now() + chrono::TimeDelta::days(1);
        let (paused, _) = decide(active, Verb::Pause, later).unwrap();
        let (again, _) = decide(paused, Verb::Publish, later).unwrap();
        assert_eq!(again.published_at, Some(now().into()));
    }
}
