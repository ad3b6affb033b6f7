//! Takes a listing away for good: gone from every read, kept in the journal. Its stock ends with it, and its id never
//! comes back.

use std::time::Duration;

use events::{ConsistencyToken, Listing, ListingId, Stock};
use service::http::IfMatch;
use tracing::info;

use super::rows::{lock_listing, lock_stock_of};
use super::same_variants;
use crate::app::App;
use crate::caller::Caller;
use crate::database;
use crate::journal::{self, Facts};
use crate::precondition;
use crate::refusal::Refused;

/// How long a client waits for a deletion.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Lock, decide, write: one transaction.
pub async fn delete_listing(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
) -> Result<ConsistencyToken, Refused> {
    precondition::require(expected)?;
    let deletion = database::repeated(|| attempt(app, caller, id, expected));
    let token = app.metrics.queries.time("delete_listing", deletion).await?;
    app.wake.ring();

    app.metrics.deleted.inc();
    info!(listing.id = %id, "Deleted listing {id}");
    Ok(token)
}

async fn attempt(app: &App, caller: &Caller, id: ListingId, expected: Option<&IfMatch>) -> Result<ConsistencyToken, Refused> {
    let now = app.clock.now();
    let mut tx = app.database.begin(DEADLINE).await?;

    let stock = lock_stock_of(&mut tx, &[id]).await?;
    let listing = lock_listing(&mut tx, id).await?.ok_or(Refused::NotFound)?;
    caller.must_own(&listing)?;
    precondition::check(expected, listing.version)?;
    same_variants(&listing, &stock)?;
    let facts = decide(listing, stock);

    journal::write(&mut tx, &facts, caller, now).await?;
    database::commit(tx).await?;
    Ok(facts.token())
}

fn decide(listing: Listing, stock: Vec<Stock>) -> Facts {
    let mut facts = Facts::default();
    for stock in stock {
        facts.end_of_stock(stock);
    }
    facts.end_of_listing(listing);
    facts
}
