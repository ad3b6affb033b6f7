//! Deletes a listing for good: it is gone from every read and stays in the journal. Its stock ends with it, and its id never comes
//! back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::listing::ListingChange;
use events::stock::StockChange;
use events::{Listing, ListingId, Stock};
use sqlx::PgConnection;
use tracing::info;

use super::with_stock::ListingWithStock;
use crate::actor::Actor;
use crate::command::{CommandApp, CommandError, CommandOutcome, Effect, Expected};
use crate::journal::{self, Changes};
use crate::transaction;

/// The name under which its duration is measured.
pub const OPERATION: &str = "delete_listing";
/// How long a client waits for a deletion.
pub const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct DeleteListing {
    pub listing: ListingId,
    pub expected: Expected,
}

/// Deletes the listing in a transaction of its own.
pub async fn delete_listing(
    app: &CommandApp,
    actor: &Actor,
    command: &DeleteListing,
) -> Result<CommandOutcome<()>, CommandError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = delete_listing_in(&mut tx, actor, command, app.clock.now()).await;
        transaction::end(tx, outcome).await
    });
    let outcome = app.metrics.queries.time(OPERATION, work).await?;
    if outcome.is_written() {
        app.wake.ring();
        app.metrics.deleted.inc();
        info!(listing.id = %command.listing, "Deleted listing {}", command.listing);
    }
    Ok(outcome)
}

/// Lock, decide, write, in the transaction of the caller.
pub async fn delete_listing_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &DeleteListing,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<()>, CommandError> {
    let before = ListingWithStock::lock(tx, command.listing).await?;
    actor.must_be_able_to_change(&before.listing)?;
    command.expected.check(before.listing.version)?;
    let changes = decide(before);

    journal::write(tx, &changes, actor, now).await?;
    Ok(CommandOutcome::new((), changes.token(), Effect::Written))
}

fn decide(before: ListingWithStock) -> Changes {
    let mut changes = Changes::default();
    for stock in before.stock {
        changes.end::<Stock>(StockChange::Removed {}, stock);
    }
    changes.end::<Listing>(ListingChange::Deleted {}, before.listing);
    changes
}
