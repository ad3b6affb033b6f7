//! What all changes of a stock share: the lock, the write with its effect on the listing, and the errors.

use chrono::{DateTime, Utc};
use events::stock::StockChange;
use events::{AggregateKey, ConsistencyToken, Listing, Stock, VariantId};
use service::problem::{Fault, Kind, ProblemType, Refusal};
use sqlx::PgConnection;

use crate::actor::Actor;
use crate::command::{CommandError, CommandOutcome, Effect, Expected, LostRace};
use crate::journal::{self, Changes};
use crate::listings::availability::set_availability;
use crate::tables::listings::read_listing;
use crate::tables::stock::lock_stock;

/// Limit of the texts of a change, in characters.
pub const NOTE: usize = 500;

/// More pieces were to leave than are available.
pub static INSUFFICIENT_STOCK: ProblemType = ProblemType {
    uri: "/problems/insufficient-stock",
    refines: &Kind::Conflict,
    title: "There is not enough in stock",
    advice: "Ask for fewer pieces, or wait until there are more.",
};

/// Why a stock was not changed.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    #[error("Validation failed")]
    Invalid(Vec<Fault>),
    #[error("{available} pieces are available")]
    Insufficient { available: i64 },
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Refusal for StockError {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Insufficient { .. } => Kind::Custom(&INSUFFICIENT_STOCK),
            Self::Command(error) => error.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::Insufficient { .. } | Self::Command(_) => Vec::new(),
        }
    }
}

impl LostRace for StockError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Command(error) if error.is_lost_race())
    }
}

/// The stock after a change, and the change; `None` if there is nothing to change.
pub type DecidedStock = Option<(Stock, StockChange)>;

/// Locks a stock that the actor may change and that is at an expected version.
pub async fn lock_to_change(
    tx: &mut PgConnection,
    actor: &Actor,
    variant: VariantId,
    expected: Option<&Expected>,
) -> Result<Stock, CommandError> {
    let stock = lock_stock(tx, variant).await?.ok_or(CommandError::NotFound)?;
    if !actor.may_change(stock.seller_id) {
        // A stranger may learn that the stock exists only from a listing that anyone can see.
        actor.must_be_able_to_change(&listing_of(tx, &stock).await?)?;
    }
    if let Some(expected) = expected {
        expected.check(stock.version)?;
    }
    Ok(stock)
}

/// Writes the change of a stock, and the change of its listing's availability if the stock reaches or leaves zero.
pub async fn write_change(
    tx: &mut PgConnection,
    actor: &Actor,
    before: Stock,
    decided: DecidedStock,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Stock>, CommandError> {
    let Some((stock, change)) = decided else {
        let listing = listing_of(tx, &before).await?;
        let token = token(&before, &listing);
        return Ok(CommandOutcome::new(before, token, Effect::Unchanged));
    };
    let stock = Stock { version: before.version + 1, updated_at: before.updated_at.max(now.into()), ..stock };
    let mut changes = Changes::default();
    changes.push::<Stock>(change, stock.clone());
    let listing = if crosses_zero(&before, &stock) {
        set_availability(tx, &stock, now, &mut changes).await?
    } else {
        listing_of(tx, &stock).await?
    };

    journal::write(tx, &changes, actor, now).await?;
    let token = token(&stock, &listing);
    Ok(CommandOutcome::new(stock, token, Effect::Written))
}

async fn listing_of(tx: &mut PgConnection, stock: &Stock) -> Result<Listing, CommandError> {
    read_listing(tx, stock.listing_id).await?.ok_or(CommandError::NotFound)
}

/// Names the stock and the present version of its listing, so that a query for both knows what to wait for.
fn token(stock: &Stock, listing: &Listing) -> ConsistencyToken {
    ConsistencyToken::of(&[
        (AggregateKey::stock(stock.variant_id), stock.version),
        (AggregateKey::listing(listing.id), listing.version),
    ])
}

fn crosses_zero(before: &Stock, after: &Stock) -> bool {
    (before.available() > 0) != (after.available() > 0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn stock(on_hand: i64, reserved: i64) -> Stock {
        let id = uuid::Uuid::from_u128(1);
        Stock {
            variant_id: id.into(),
            listing_id: id.into(),
            seller_id: id.into(),
            on_hand,
            reserved,
            low_stock_threshold: Some(2),
            version: 4,
            updated_at: DateTime::UNIX_EPOCH.into(),
        }
    }

    #[test]
    fn only_from_or_to_zero_is_a_crossing() {
        assert!(crosses_zero(&stock(1, 0), &stock(0, 0)));
        assert!(crosses_zero(&stock(2, 2), &stock(3, 2)));
        assert!(!crosses_zero(&stock(2, 0), &stock(1, 0)));
        assert!(!crosses_zero(&stock(2, 2), &stock(0, 0)));
    }
}
