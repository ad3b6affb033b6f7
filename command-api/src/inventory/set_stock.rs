//! Sets a stock to what was counted, and the level at which it counts as low.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::stock::{PIECES_LIMIT, StockChange};
use events::{Stock, VariantId};
use serde::Deserialize;
use service::problem::Fault;
use sqlx::PgConnection;
use tracing::info;
use utoipa::ToSchema;

use super::change::{DecidedStock, NOTE, StockError, lock_to_change, write_change};
use crate::actor::Actor;
use crate::command::{CommandApp, CommandOutcome, Expected};
use crate::transaction;
use crate::validation::{Faults, optional};

/// The name under which its duration is measured.
pub const OPERATION: &str = "set_stock";
/// How long a client waits for a stock to be set.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// What to set; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct SetStockDraft {
    /// Pieces on the shelf, the reserved ones included.
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 12)]
    pub on_hand: Option<i64>,
    /// At or below this many available pieces the stock counts as low.
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 5)]
    pub low_stock_threshold: Option<i64>,
    #[schema(min_length = 1, max_length = 500)]
    pub reason: Option<String>,
}

#[derive(Debug, Clone)]
pub struct SetStock {
    variant: VariantId,
    expected: Option<Expected>,
    on_hand: Option<i64>,
    low_stock_threshold: Option<i64>,
    reason: Option<String>,
}

impl SetStock {
    /// Judges what a client sent, together with the faults that reading it found.
    pub fn new(
        variant: VariantId,
        expected: Option<Expected>,
        draft: SetStockDraft,
        found: Vec<Fault>,
    ) -> Result<Self, StockError> {
        let mut faults = Faults::from(found);
        let SetStockDraft { on_hand, low_stock_threshold, reason } = draft;
        for (pointer, pieces) in [("/on_hand", on_hand), ("/low_stock_threshold", low_stock_threshold)] {
            if pieces.is_some_and(|pieces| !(0..=PIECES_LIMIT).contains(&pieces)) {
                faults.add(pointer, format!("must be from 0 to {PIECES_LIMIT}"));
            }
        }
        if on_hand.is_none() && low_stock_threshold.is_none() {
            faults.add("", "must have on_hand or low_stock_threshold");
        }
        let reason = optional(&mut faults, "/reason", reason, NOTE);
        if faults.is_empty() {
            Ok(Self { variant, expected, on_hand, low_stock_threshold, reason })
        } else {
            Err(StockError::Invalid(faults.into_vec()))
        }
    }
}

/// Sets the stock in a transaction of its own.
pub async fn set_stock(app: &CommandApp, actor: &Actor, command: &SetStock) -> Result<CommandOutcome<Stock>, StockError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = set_stock_in(&mut tx, actor, command, app.clock.now()).await;
        transaction::end(tx, outcome).await
    });
    let outcome = app.metrics.queries.time(OPERATION, work).await?;
    if outcome.is_written() {
        app.wake.ring();
        let Stock { variant_id, on_hand, .. } = outcome.answer;
        info!(variant.id = %variant_id, on_hand, "Stock of variant {variant_id} is {on_hand} now");
    }
    Ok(outcome)
}

/// Lock, decide, write, in the transaction of the caller.
pub async fn set_stock_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &SetStock,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Stock>, StockError> {
    let before = lock_to_change(tx, actor, command.variant, command.expected.as_ref()).await?;
    let decided = decide(&before, command)?;
    Ok(write_change(tx, actor, before, decided, now).await?)
}

fn decide(stock: &Stock, command: &SetStock) -> Result<DecidedStock, StockError> {
    let on_hand = command.on_hand.unwrap_or(stock.on_hand);
    let low_stock_threshold = command.low_stock_threshold.or(stock.low_stock_threshold);
    if on_hand < stock.reserved {
        // Reserved pieces must be there.
        return Err(StockError::Insufficient { available: stock.available() });
    }
    if on_hand == stock.on_hand && low_stock_threshold == stock.low_stock_threshold {
        return Ok(None);
    }
    let change = StockChange::Set {
        on_hand: command.on_hand,
        low_stock_threshold: command.low_stock_threshold,
        reason: command.reason.clone(),
    };
    Ok(Some((Stock { on_hand, low_stock_threshold, ..stock.clone() }, change)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::change::tests::stock;

    fn set(on_hand: Option<i64>, low_stock_threshold: Option<i64>) -> SetStock {
        SetStock::new(VariantId::new(), None, SetStockDraft { on_hand, low_stock_threshold, reason: None }, Vec::new()).unwrap()
    }

    #[test]
    fn what_is_absent_stays() {
        let (after, _) = decide(&stock(5, 1), &set(Some(7), None)).unwrap().unwrap();
        assert_eq!((after.on_hand, after.reserved, after.low_stock_threshold), (7, 1, Some(2)));
        let (after, _) = decide(&stock(5, 1), &set(None, Some(0))).unwrap().unwrap();
        assert_eq!((after.on_hand, after.low_stock_threshold), (5, Some(0)));
    }

    #[test]
    fn the_same_count_is_no_change() {
        assert!(decide(&stock(5, 1), &set(Some(5), Some(2))).unwrap().is_none());
    }

    #[test]
    fn reserved_pieces_must_be_there() {
        assert!(decide(&stock(5, 3), &set(Some(3), None)).is_ok());
        assert!(matches!(decide(&stock(5, 3), &set(Some(2), None)), Err(StockError::Insufficient { available: 2 })));
    }

    #[test]
    fn bounds_and_emptiness_are_refused() {
        for (on_hand, threshold) in [(Some(-1), None), (Some(PIECES_LIMIT + 1), None), (None, Some(-1)), (None, None)] {
            let draft = SetStockDraft { on_hand, low_stock_threshold: threshold, reason: None };
            assert!(SetStock::new(VariantId::new(), None, draft, Vec::new()).is_err(), "{on_hand:?} {threshold:?}");
        }
    }
}
