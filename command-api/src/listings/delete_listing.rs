//! Takes a listing away for good: gone from every read, kept in the journal. Its stock ends with it, and its id never
//! comes back.

use std::time::Duration;

use events::{ConsistencyToken, ListingId};
use service::http::IfMatch;
use tracing::info;

use super::held::Held;
use super::rows::{lock_listing, lock_stock_of};
use crate::app::App;
use crate::caller::Caller;
use crate::database;
use crate::journal::{self, Facts};
use crate::precondition;
use crate::refusal::Refused;
use crate::transaction;

/// How long a client waits for a deletion.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Lock, decide, write: one transaction.
pub async fn delete_listing(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
) -> Result<ConsistencyToken, Refused> {
    let deletion = transaction::repeated(|| attempt(app, caller, id, expected));
    let token = app.metrics.queries.time("delete_listing", deletion).await?;
    app.wake.ring();

    app.metrics.deleted.inc();
    info!(listing.id = %id, "Deleted listing {id}");
    Ok(token)
}

async fn attempt(app: &App, caller: &Caller, id: ListingId, expected: Option<&IfMatch>) -> Result<ConsistencyToken, Refused> {
    let now = app.clock.now();
    precondition::require(expected)?;
    let mut tx = app.database.begin(DEADLINE).await?;

    let stock = lock_stock_of(&mut tx, &[id]).await?;
    let listing = lock_listing(&mut tx, id).await?.ok_or(Refused::NotFound)?;
    caller.must_own(&listing)?;
    precondition::check(expected, listing.version)?;
    let facts = decide(Held::with_all_stock(listing, stock)?);

    journal::write(&mut tx, &facts, caller, now).await?;
    database::commit(tx).await?;
    Ok(facts.token())
}

fn decide(held: Held) -> Facts {
    let mut facts = Facts::default();
    for stock in held.stock {
        facts.end_of_stock(stock);
    }
    facts.end_of_listing(held.listing);
    facts
}
