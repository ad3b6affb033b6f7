//! Sets a stock to what was counted, and when it counts as low.

use std::time::Duration;

use events::stock::{PIECES_LIMIT, StockChange};
use events::{Stock, VariantId};
use serde::Deserialize;
use service::http::IfMatch;
use service::problem::Fault;
use utoipa::ToSchema;

use super::change::{Decided, Request, StockRefused, change_stock};
use super::note;
use crate::app::App;
use crate::caller::Caller;
use crate::outcome::Done;

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

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetStock {
    on_hand: Option<i64>,
    low_stock_threshold: Option<i64>,
    reason: Option<String>,
}

impl SetStock {
    /// Judges what a client sent, together with faults found in it before.
    pub fn new(draft: SetStockDraft, mut faults: Vec<Fault>) -> Result<Self, StockRefused> {
        for (pointer, pieces) in [("/on_hand", draft.on_hand), ("/low_stock_threshold", draft.low_stock_threshold)] {
            if pieces.is_some_and(|pieces| !(0..=PIECES_LIMIT).contains(&pieces)) {
                faults.push(Fault::new(pointer, format!("must be from 0 to {PIECES_LIMIT}")));
            }
        }
        if draft.on_hand.is_none() && draft.low_stock_threshold.is_none() {
            faults.push(Fault::new("", "must have on_hand or low_stock_threshold"));
        }
        let reason = note::judge("/reason", draft.reason, &mut faults);
        if faults.is_empty() {
            Ok(Self { on_hand: draft.on_hand, low_stock_threshold: draft.low_stock_threshold, reason })
        } else {
            Err(StockRefused::Invalid(faults))
        }
    }
}

pub async fn set_stock(
    app: &App,
    caller: &Caller,
    variant: VariantId,
    expected: Option<&IfMatch>,
    command: &SetStock,
) -> Result<Done<Stock>, StockRefused> {
    let request = Request { variant, expected, keyed: None, deadline: DEADLINE };
    let setting = change_stock(app, caller, &request, |stock| decide(stock, command));
    app.metrics.queries.time("set_stock", setting).await
}

fn decide(stock: &Stock, command: &SetStock) -> Decided {
    let on_hand = command.on_hand.unwrap_or(stock.on_hand);
    let low_stock_threshold = command.low_stock_threshold.or(stock.low_stock_threshold);
    if on_hand < stock.reserved {
        // Pieces held for buyers must be there.
        return Err(StockRefused::Insufficient { available: stock.available() });
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

    fn stock(on_hand: i64, reserved: i64) -> Stock {
        let id = uuid::Uuid::from_u128(1);
        Stock {
            variant_id: id.into(),
            listing_id: id.into(),
            seller_id: id.into(),
            on_hand,
            reserved,
            low_stock_threshold: Some(2),
            version: 4,
            updated_at: chrono::DateTime::UNIX_EPOCH.into(),
        }
    }

    fn set(on_hand: Option<i64>, low_stock_threshold: Option<i64>) -> SetStock {
        SetStock::new(SetStockDraft { on_hand, low_stock_threshold, reason: None }, Vec::new()).unwrap()
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
        assert!(matches!(decide(&stock(5, 3), &set(Some(2), None)), Err(StockRefused::Insufficient { available: 2 })));
    }

    #[test]
    fn bounds_and_emptiness_are_refused() {
        for (on_hand, threshold) in [(Some(-1), None), (Some(PIECES_LIMIT + 1), None), (None, Some(-1)), (None, None)] {
            let draft = SetStockDraft { on_hand, low_stock_threshold: threshold, reason: None };
            assert!(SetStock::new(draft, Vec::new()).is_err(), "{on_hand:?} {threshold:?}");
        }
    }
}
