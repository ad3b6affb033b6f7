//! Records that pieces came, went, or were miscounted.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::stock::{Movement, PIECES_LIMIT, StockChange};
use events::{Stock, VariantId};
use serde::Deserialize;
use service::problem::Fault;
use sqlx::PgConnection;
use tracing::info;
use utoipa::ToSchema;

use super::change::{DecidedStock, NOTE, StockError, lock_to_change, write_change};
use crate::actor::Actor;
use crate::command::{CommandApp, CommandOutcome, Expected};
use crate::idempotency::{self, IdempotencyScope};
use crate::transaction;
use crate::validation::{Faults, REQUIRED, optional};

/// The name under which its duration is measured.
pub const OPERATION: &str = "record_movement";
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

#[derive(Debug, Clone)]
pub struct RecordMovement {
    variant: VariantId,
    expected: Option<Expected>,
    scope: Option<IdempotencyScope>,
    movement: Movement,
    quantity: i64,
    reason: Option<String>,
    reference: Option<String>,
}

const MOVEMENTS: [(&str, Movement); 3] = [("in", Movement::In), ("out", Movement::Out), ("adjustment", Movement::Adjustment)];

impl RecordMovement {
    /// Judges what a client sent, together with the faults that reading it found.
    pub fn new(
        variant: VariantId,
        expected: Option<Expected>,
        scope: Option<IdempotencyScope>,
        draft: MovementDraft,
        found: Vec<Fault>,
    ) -> Result<Self, StockError> {
        let mut faults = Faults::from(found);
        let named = draft.r#type.as_deref();
        let movement = MOVEMENTS.into_iter().find(|(name, _)| Some(*name) == named).map(|(_, movement)| movement);
        match (named, movement) {
            (None, _) => faults.add("/type", REQUIRED),
            (Some(_), None) => faults.add("/type", "must be one of in, out, adjustment"),
            (Some(_), Some(_)) => {}
        }
        let least = if movement == Some(Movement::Adjustment) { -PIECES_LIMIT } else { 1 };
        match draft.quantity {
            None => faults.add("/quantity", REQUIRED),
            Some(0) => faults.add("/quantity", "must not be 0"),
            Some(quantity) if !(least..=PIECES_LIMIT).contains(&quantity) => {
                faults.add("/quantity", format!("must be from {least} to {PIECES_LIMIT}"));
            }
            Some(_) => {}
        }
        let reason = optional(&mut faults, "/reason", draft.reason, NOTE);
        let reference = optional(&mut faults, "/reference", draft.reference, NOTE);
        match (movement, draft.quantity) {
            (Some(movement), Some(quantity)) if faults.is_empty() => {
                Ok(Self { variant, expected, scope, movement, quantity, reason, reference })
            }
            _ => Err(StockError::Invalid(faults.into_vec())),
        }
    }
}

/// Records the movement in a transaction of its own.
pub async fn record_movement(
    app: &CommandApp,
    actor: &Actor,
    command: &RecordMovement,
) -> Result<CommandOutcome<Stock>, StockError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = record_movement_in(&mut tx, actor, command, app.clock.now()).await;
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
pub async fn record_movement_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &RecordMovement,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Stock>, StockError> {
    if let Some(first) = idempotency::first_answer(tx, command.scope.as_ref()).await? {
        return Ok(first);
    }
    let before = lock_to_change(tx, actor, command.variant, command.expected.as_ref()).await?;
    let decided = decide(&before, command)?;
    let outcome = write_change(tx, actor, before, decided, now).await?;
    idempotency::keep(tx, command.scope.as_ref(), &outcome).await?;
    Ok(outcome)
}

fn decide(stock: &Stock, command: &RecordMovement) -> Result<DecidedStock, StockError> {
    let moved = match command.movement {
        Movement::In | Movement::Adjustment => command.quantity,
        Movement::Out => -command.quantity,
    };
    let on_hand = stock.on_hand + moved;
    if on_hand < stock.reserved {
        return Err(StockError::Insufficient { available: stock.available() });
    }
    if on_hand > PIECES_LIMIT {
        let detail = format!("would make it more than {PIECES_LIMIT} pieces");
        return Err(StockError::Invalid(vec![Fault::new("/quantity", detail)]));
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
    use crate::inventory::change::tests::stock;

    fn movement(r#type: &str, quantity: i64) -> Result<RecordMovement, StockError> {
        let draft = MovementDraft { r#type: Some(r#type.to_owned()), quantity: Some(quantity), reason: None, reference: None };
        RecordMovement::new(VariantId::new(), None, None, draft, Vec::new())
    }

    fn left(stock: &Stock, r#type: &str, quantity: i64) -> Result<i64, StockError> {
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
        assert!(matches!(left(&stock(5, 3), "out", 3), Err(StockError::Insufficient { available: 2 })));
        assert!(matches!(left(&stock(5, 3), "adjustment", -3), Err(StockError::Insufficient { available: 2 })));
        assert!(matches!(left(&stock(PIECES_LIMIT, 0), "in", 1), Err(StockError::Invalid(_))));
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
