//! Publishes, pauses or archives a listing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::ListingId;
use events::listing::{Listing, ListingChange, Status};
use service::problem::{Kind, Refusal};
use sqlx::PgConnection;
use tracing::info;

use crate::actor::Actor;
use crate::command::{CommandApp, CommandError, CommandOutcome, Expected, LostRace};
use crate::idempotency::{self, IdempotencyScope};
use crate::journal::{self, Changes};
use crate::tables::listings::lock_listing;
use crate::transaction;

/// The name under which its duration is measured.
pub const OPERATION: &str = "change_status";
/// How long a client waits for a change of a listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusVerb {
    Publish,
    Pause,
    Archive,
}

impl StatusVerb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Pause => "pause",
            Self::Archive => "archive",
        }
    }
}

#[derive(Debug, Clone)]
pub struct ChangeStatus {
    pub listing: ListingId,
    pub verb: StatusVerb,
    pub expected: Option<Expected>,
    pub scope: Option<IdempotencyScope>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeStatusError {
    #[error("Cannot {} a listing with status {from}", verb.as_str())]
    NotFrom { from: Status, verb: StatusVerb },
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Refusal for ChangeStatusError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFrom { .. } => Kind::Conflict,
            Self::Command(error) => error.kind(),
        }
    }
}

impl LostRace for ChangeStatusError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Command(error) if error.is_lost_race())
    }
}

/// Changes the status in a transaction of its own.
pub async fn change_status(
    app: &CommandApp,
    actor: &Actor,
    command: &ChangeStatus,
) -> Result<CommandOutcome<Listing>, ChangeStatusError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = change_status_in(&mut tx, actor, command, app.clock.now()).await;
        transaction::end(tx, outcome).await
    });
    let outcome = app.metrics.queries.time(OPERATION, work).await?;
    if outcome.is_written() {
        app.wake.ring();
        app.metrics.updated.inc();
        let (listing, status) = (outcome.answer.id, outcome.answer.status);
        info!(listing.id = %listing, listing.status = %status, "Listing {listing} is {status} now");
    }
    Ok(outcome)
}

/// Lock, decide, write, in the transaction of the caller.
pub async fn change_status_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &ChangeStatus,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Listing>, ChangeStatusError> {
    if let Some(first) = idempotency::first_answer(tx, command.scope.as_ref()).await? {
        return Ok(first);
    }
    let expected = Expected::required(command.expected.clone())?;
    let listing = lock_listing(tx, command.listing).await?.ok_or(CommandError::NotFound)?;
    actor.must_be_able_to_change(&listing)?;
    expected.check(listing.version)?;
    let (listing, change) = decide(listing, command.verb, now)?;

    let mut changes = Changes::default();
    changes.push::<Listing>(change, listing.clone());
    journal::write(tx, &changes, actor, now).await?;
    let outcome = changes.outcome(listing);
    idempotency::keep(tx, command.scope.as_ref(), &outcome).await?;
    Ok(outcome)
}

fn decide(listing: Listing, verb: StatusVerb, now: DateTime<Utc>) -> Result<(Listing, ListingChange), ChangeStatusError> {
    let (status, change) = match (verb, listing.status) {
        (StatusVerb::Publish, Status::Draft | Status::Paused) => (Status::Active, ListingChange::Published {}),
        (StatusVerb::Pause, Status::Active) => (Status::Paused, ListingChange::Paused {}),
        (StatusVerb::Archive, Status::Draft | Status::Active | Status::Paused | Status::Sold) => {
            (Status::Archived, ListingChange::Archived {})
        }
        (verb, from) => return Err(ChangeStatusError::NotFrom { from, verb }),
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

    fn after(verb: StatusVerb, from: Status) -> Option<Status> {
        let listing = Listing { status: from, ..a_listing(&json!({ "title": "t", "price": { "amount": "1" } })).listing };
        decide(listing, verb, now()).ok().map(|(listing, _)| listing.status)
    }

    #[test]
    fn the_table_of_the_contract() {
        use Status::{Active, Archived, Draft, Paused, Sold};
        for (verb, allowed, to) in [
            (StatusVerb::Publish, vec![Draft, Paused], Active),
            (StatusVerb::Pause, vec![Active], Paused),
            (StatusVerb::Archive, vec![Draft, Active, Paused, Sold], Archived),
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
        let (active, _) = decide(draft, StatusVerb::Publish, now()).unwrap();
        assert_eq!((active.published_at, active.version), (Some(now().into()), 2));
        let later = now() + chrono::TimeDelta::days(1);
        let (paused, _) = decide(active, StatusVerb::Pause, later).unwrap();
        let (again, _) = decide(paused, StatusVerb::Publish, later).unwrap();
        assert_eq!(again.published_at, Some(now().into()));
    }
}
