//! Changing one stock: lock, decide, and tell its listing if it went from or to zero.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::listing::ListingChange;
use events::stock::StockChange;
use events::{AggregateKey, ConsistencyToken, Listing, ListingId, Stock, UserId, VariantId};
use http::StatusCode;
use service::http::IfMatch;
use service::problem::{Fault, Kind, ProblemType, Refusal};
use sqlx::PgConnection;
use tracing::info;

use crate::app::App;
use crate::caller::Caller;
use crate::idempotency::{self, Keyed};
use crate::journal::{self, Facts};
use crate::listings::rows::{lock_listing, read_listing};
use crate::outcome::Done;
use crate::precondition;
use crate::refusal::{Refused, Repeatable};
use crate::transaction;

/// More pieces were to leave than are available.
pub static INSUFFICIENT_STOCK: ProblemType = ProblemType {
    uri: "/problems/insufficient-stock",
    status: StatusCode::CONFLICT,
    title: "There is not enough in stock",
    advice: "Ask for fewer pieces, or wait until there are more.",
};

#[derive(Debug, thiserror::Error)]
pub enum StockRefused {
    #[error("The request breaks rules")]
    Invalid(Vec<Fault>),
    #[error("{available} pieces are available")]
    Insufficient { available: i64 },
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal for StockRefused {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Insufficient { .. } => Kind::Custom(&INSUFFICIENT_STOCK),
            Self::Refused(refused) => refused.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::Insufficient { .. } | Self::Refused(_) => Vec::new(),
        }
    }
}

impl Repeatable for StockRefused {
    fn lost_race(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.lost_race())
    }
}

/// What all changes of a stock have in common.
pub struct Request<'a> {
    pub variant: VariantId,
    pub expected: Option<&'a IfMatch>,
    pub keyed: Option<&'a Keyed>,
    pub deadline: Duration,
}

/// The stock afterwards and what happened; `None` if nothing did.
pub type Decided = Result<Option<(Stock, StockChange)>, StockRefused>;

pub async fn change_stock(
    app: &App,
    caller: &Caller,
    request: &Request<'_>,
    decide: impl Fn(&Stock) -> Decided + Send + Sync,
) -> Result<Done<Stock>, StockRefused> {
    let (done, changed) = transaction::repeated(|| attempt(app, caller, request, &decide)).await?;
    if changed {
        app.wake.ring();
        let Stock { variant_id, on_hand, .. } = done.state;
        info!(variant.id = %variant_id, on_hand, "Stock of variant {variant_id} is {on_hand} now");
    }
    Ok(done)
}

/// Lock, decide, write: one transaction.
async fn attempt(
    app: &App,
    caller: &Caller,
    request: &Request<'_>,
    decide: impl Fn(&Stock) -> Decided + Send + Sync,
) -> Result<(Done<Stock>, bool), StockRefused> {
    let mut tx = app.database.begin(request.deadline).await.map_err(Refused::from)?;
    let outcome = decide_and_write(&mut tx, caller, request, decide, app.clock.now()).await;
    transaction::end(tx, outcome).await
}

async fn decide_and_write(
    tx: &mut PgConnection,
    caller: &Caller,
    request: &Request<'_>,
    decide: impl Fn(&Stock) -> Decided + Send + Sync,
    now: DateTime<Utc>,
) -> Result<(Done<Stock>, bool), StockRefused> {
    if let Some(first) = idempotency::first_answer(tx, request.keyed).await? {
        return Ok((first, false));
    }
    let before = lock_stock(tx, request.variant).await?.ok_or(Refused::NotFound)?;
    must_own(tx, caller, &before).await?;
    precondition::check(request.expected, before.version)?;
    let Some((stock, change)) = decide(&before)? else {
        let listing = listing_of(tx, &before).await?;
        return Ok((Done::now(before.clone(), token(&before, &listing)), false));
    };

    let stock = Stock { version: before.version + 1, updated_at: before.updated_at.max(now.into()), ..stock };
    let mut facts = Facts::default();
    facts.stock(change, stock.clone());
    let listing = if crosses_zero(&before, &stock) {
        // A statement of its own: what the lock waited for is seen only by what is read after it (PROTOCOL W2).
        let listing = lock_listing(tx, stock.listing_id).await?.ok_or(Refused::NotFound)?;
        let listing = with_availability(listing, stock.variant_id, stock.available() > 0, now);
        let change = ListingChange::AvailabilityChanged { variant_id: stock.variant_id, available: stock.available() > 0 };
        facts.listing(change, listing.clone());
        listing
    } else {
        listing_of(tx, &stock).await?
    };

    let token = token(&stock, &listing);
    journal::write(tx, &facts, caller, now).await?;
    let kept = (AggregateKey::stock(stock.variant_id), stock.version);
    idempotency::keep(tx, request.keyed, StatusCode::CREATED, kept, &token).await?;
    Ok((Done::now(stock, token), true))
}

async fn lock_stock(connection: &mut PgConnection, variant: VariantId) -> Result<Option<Stock>, Refused> {
    let row = sqlx::query!(
        "select listing_id, seller_id, on_hand, reserved, low_stock_threshold, version, updated_at
           from command.stock where variant_id = $1 and removed_at is null for update",
        variant.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Stock {
        variant_id: variant,
        listing_id: ListingId(row.listing_id),
        seller_id: UserId(row.seller_id),
        on_hand: row.on_hand,
        reserved: row.reserved,
        low_stock_threshold: row.low_stock_threshold,
        version: row.version.cast_unsigned(),
        updated_at: row.updated_at.into(),
    }))
}

/// A stock is its listing's owner's; others learn of it only what they could see of the listing.
async fn must_own(connection: &mut PgConnection, caller: &Caller, stock: &Stock) -> Result<(), Refused> {
    if caller.is_admin() || caller.user == stock.seller_id {
        return Ok(());
    }
    caller.must_own(&listing_of(connection, stock).await?)
}

async fn listing_of(connection: &mut PgConnection, stock: &Stock) -> Result<Listing, Refused> {
    read_listing(connection, stock.listing_id).await?.ok_or(Refused::NotFound)
}

/// Names the stock, and its listing as it is, so that a query for both knows what to wait for.
fn token(stock: &Stock, listing: &Listing) -> ConsistencyToken {
    ConsistencyToken::of(&[
        (AggregateKey::stock(stock.variant_id), stock.version),
        (AggregateKey::listing(listing.id), listing.version),
    ])
}

fn crosses_zero(before: &Stock, after: &Stock) -> bool {
    (before.available() > 0) != (after.available() > 0)
}

/// From the listing's own variants: two that reach zero together must not each believe that the other is still there.
fn with_availability(mut listing: Listing, variant: VariantId, available: bool, now: DateTime<Utc>) -> Listing {
    for own in listing.variants.iter_mut().filter(|own| own.id == variant) {
        own.available = available;
    }
    listing.available = listing.variants.iter().any(|variant| variant.available);
    listing.version += 1;
    listing.updated_at = listing.updated_at.max(now.into());
    listing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::listings::tests::{a_listing, now};

    #[test]
    fn two_variants_at_zero_make_the_listing_unavailable_one_is_not_enough() {
        let mut held =
            a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "variants": [{ "sku": "a" }, { "sku": "b" }] }));
        for variant in &mut held.listing.variants {
            variant.available = true;
        }
        held.listing.available = true;
        let (a, b) = (held.listing.variants[0].id, held.listing.variants[1].id);

        let first = with_availability(held.listing, a, false, now());
        assert!(first.available && !first.variants[0].available);
        let second = with_availability(first, b, false, now());
        assert!(!second.available);
        assert_eq!(second.version, 3);
    }

    #[test]
    fn only_from_or_to_zero_is_a_crossing() {
        let held = a_listing(&json!({ "title": "t", "price": { "amount": "1" } }));
        let stock = |on_hand, reserved| Stock { on_hand, reserved, ..held.stock[0].clone() };
        assert!(crosses_zero(&stock(1, 0), &stock(0, 0)));
        assert!(crosses_zero(&stock(2, 2), &stock(3, 2)));
        assert!(!crosses_zero(&stock(2, 0), &stock(1, 0)));
        assert!(!crosses_zero(&stock(2, 2), &stock(0, 0)));
    }
}
