//! Records that pieces came, went, or were miscounted.

use std::time::Duration;

use events::stock::{Movement, PIECES_LIMIT, StockChange};
use events::{Stock, VariantId};
use serde::Deserialize;
use service::http::IfMatch;
use service::problem::Fault;
use utoipa::ToSchema;

use super::change::{Decided, Request, StockRefused, change_stock};
use super::note;
use crate::app::App;
use crate::caller::Caller;
use crate::idempotency::Keyed;
use crate::outcome::Done;

/// How long a client waits for a movement.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// A movement of pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct MovementDraft {
    /// `in`, `out` or `adjustment`.
    #[schema(required, nullable = false, value_type = Option<Movement>)]
    pub r#type: Option<String>,
    /// At least 1; an adjustment may be negative, but not 0.
    #[schema(required, nullable = false, minimum = -1_000_000_000, maximum = 1_000_000_000, example = 5)]
    pub quantity: Option<i64>,
    #[schema(min_length = 1, max_length = 500)]
    pub reason: Option<String>,
    /// What it belongs to elsewhere, such as the number of an order.
    #[schema(min_length = 1, max_length = 500)]
    pub reference: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMovement {
    movement: Movement,
    quantity: i64,
    reason: Option<String>,
    reference: Option<String>,
}

const MOVEMENTS: [(&str, Movement); 3] = [("in", Movement::In), ("out", Movement::Out), ("adjustment", Movement::Adjustment)];

impl RecordMovement {
    /// Judges what a client sent, together with faults found in it before.
    pub fn new(draft: MovementDraft, mut faults: Vec<Fault>) -> Result<Self, StockRefused> {
        let named = draft.r#type.as_deref();
        let movement = MOVEMENTS.into_iter().find(|(name, _)| Some(*name) == named).map(|(_, movement)| movement);
        match (named, movement) {
            (None, _) => faults.push(Fault::new("/type", "is required")),
            (Some(_), None) => faults.push(Fault::new("/type", "must be one of in, out, adjustment")),
            (Some(_), Some(_)) => {}
        }
        let least = if movement == Some(Movement::Adjustment) { -PIECES_LIMIT } else { 1 };
        match draft.quantity {
            None => faults.push(Fault::new("/quantity", "is required")),
            Some(0) => faults.push(Fault::new("/quantity", "must not be 0")),
            Some(quantity) if !(least..=PIECES_LIMIT).contains(&quantity) => {
                faults.push(Fault::new("/quantity", format!("must be from {least} to {PIECES_LIMIT}")));
            }
            Some(_) => {}
        }
        let reason = note::judge("/reason", draft.reason, &mut faults);
        let reference = note::judge("/reference", draft.reference, &mut faults);
        match (movement, draft.quantity) {
            (Some(movement), Some(quantity)) if faults.is_empty() => Ok(Self { movement, quantity, reason, reference }),
            _ => Err(StockRefused::Invalid(faults)),
        }
    }
}

pub async fn record_movement(
    app: &App,
    caller: &Caller,
    variant: VariantId,
    expected: Option<&IfMatch>,
    keyed: Option<&Keyed>,
    command: &RecordMovement,
) -> Result<Done<Stock>, StockRefused> {
    let request = Request { variant, expected, keyed, deadline: DEADLINE };
    let recording = change_stock(app, caller, &request, |stock| decide(stock, command));
    app.metrics.queries.time("record_movement", recording).await
}

fn decide(stock: &Stock, command: &RecordMovement) -> Decided {
    let moved = match command.movement {
        Movement::In | Movement::Adjustment => command.quantity,
        Movement::Out => -command.quantity,
    };
    let on_hand = stock.on_hand + moved;
    if on_hand < stock.reserved {
        return Err(StockRefused::Insufficient { available: stock.available() });
    }
    if on_hand > PIECES_LIMIT {
        let detail = format!("would make it more than {PIECES_LIMIT} pieces");
        return Err(StockRefused::Invalid(vec![Fault::new("/quantity", detail)]));
    }
    let change = StockChange::Moved {
        movement: command.movement,
        quantity: command.quantity,
        reason: command.reason.clone(),
        reference: command.reference.clone(),
    };
    Ok(Some((Stock { on_hand, ..stock.clone() }, change)))
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

    fn movement(r#type: &str, quantity: i64) -> Result<RecordMovement, StockRefused> {
        let draft = MovementDraft { r#type: Some(r#type.to_owned()), quantity: Some(quantity), reason: None, reference: None };
        RecordMovement::new(draft, Vec::new())
    }

    fn left(stock: &Stock, r#type: &str, quantity: i64) -> Result<i64, StockRefused> {
        decide(stock, &movement(r#type, quantity).unwrap()).map(|changed| changed.unwrap().0.on_hand)
    }

    #[test]
    fn pieces_come_go_and_are_corrected() {
        assert_eq!(left(&stock(5, 0), "in", 2).unwrap(), 7);
        assert_eq!(left(&stock(5, 0), "out", 5).unwrap(), 0);
        assert_eq!(left(&stock(5, 0), "adjustment", -4).unwrap(), 1);
        assert_eq!(left(&stock(5, 0), "adjustment", 4).unwrap(), 9);
    }

    #[test]
    fn no_more_go_than_are_available() {
        assert!(matches!(left(&stock(5, 3), "out", 3), Err(StockRefused::Insufficient { available: 2 })));
        assert!(matches!(left(&stock(5, 3), "adjustment", -3), Err(StockRefused::Insufficient { available: 2 })));
        assert!(matches!(left(&stock(PIECES_LIMIT, 0), "in", 1), Err(StockRefused::Invalid(_))));
    }

    #[test]
    fn only_an_adjustment_may_be_negative_and_none_is_nothing() {
        for (r#type, quantity) in
            [("in", 0), ("in", -1), ("out", -1), ("adjustment", 0), ("adjustment", i64::MIN), ("in", i64::MAX), ("gift", 1)]
        {
            assert!(movement(r#type, quantity).is_err(), "{type} {quantity}");
        }
    }
}
