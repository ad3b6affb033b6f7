//! Replaces the content of a listing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{Listing, ListingId};
use service::problem::{Fault, Kind, Refusal};
use sqlx::PgConnection;
use tracing::info;

use super::content::Content;
use super::draft::{ListingDraft, ignoring_server_owned};
use super::revise::{NewIds, lock_to_revise, revise};
use crate::actor::Actor;
use crate::command::{CommandApp, CommandError, CommandOutcome, Expected, LostRace};
use crate::journal;
use crate::transaction;

/// The name under which its duration is measured.
pub const OPERATION: &str = "replace_listing";
/// How long a client waits for a change of a listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct ReplaceListing {
    listing: ListingId,
    expected: Expected,
    content: Content,
}

/// Why a listing was not replaced or patched.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("Validation failed")]
    Invalid(Vec<Fault>),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Refusal for ReplaceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Command(error) => error.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::Command(_) => Vec::new(),
        }
    }
}

impl LostRace for ReplaceError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Command(error) if error.is_lost_race())
    }
}

impl ReplaceListing {
    /// Judges what a client sent. `unknown` are the members that no draft has; what the server sets may be among them.
    pub fn new(
        listing: ListingId,
        expected: Option<Expected>,
        draft: ListingDraft,
        unknown: Vec<Fault>,
    ) -> Result<Self, ReplaceError> {
        let content = Content::judge(draft, ignoring_server_owned(unknown)).map_err(ReplaceError::Invalid)?;
        Ok(Self { listing, expected: Expected::required(expected)?, content })
    }
}

/// Replaces the content in a transaction of its own.
pub async fn replace_listing(
    app: &CommandApp,
    actor: &Actor,
    command: &ReplaceListing,
) -> Result<CommandOutcome<Listing>, ReplaceError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = replace_listing_in(&mut tx, actor, command, app.clock.now()).await;
        transaction::end(tx, outcome).await
    });
    let outcome = app.metrics.queries.time(OPERATION, work).await?;
    if outcome.is_written() {
        app.wake.ring();
        app.metrics.updated.inc();
        info!(listing.id = %command.listing, "Changed listing {}", command.listing);
    }
    Ok(outcome)
}

/// Lock, decide, write, in the transaction of the caller. Without a change there is nothing to write.
pub async fn replace_listing_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &ReplaceListing,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Listing>, ReplaceError> {
    let touches_variants = command.content.variants.is_some();
    let before = lock_to_revise(tx, actor, command.listing, &command.expected, touches_variants).await?;
    let revised = revise(&before, command.content.clone(), now, NewIds::random());
    let (after, changes) = revised.map_err(ReplaceError::Invalid)?;

    journal::write(tx, &changes, actor, now).await?;
    Ok(changes.outcome(after.listing))
}
