//! Commands on stock against a database.

use events::{Roles, Stock, VariantId};
use serde_json::{Value, json};

use super::change::StockError;
use super::record_movement::{MovementDraft, RecordMovement, record_movement, record_movement_in};
use crate::actor::Actor;
use crate::command::{CommandApp, CommandOutcome, Effect};
use crate::idempotency::IdempotencyScope;
use crate::listings::create_listing::{CreateListing, create_listing};
use crate::listings::tests::{SELLER, draft, now, user};
use crate::test_database::{DEADLINE, TestDatabase};
use crate::transaction;

fn seller() -> Actor {
    user(SELLER, Roles::SELLER)
}

/// A variant with one piece.
async fn a_variant(app: &CommandApp) -> VariantId {
    let (draft, unknown) = draft(&json!({ "title": "t", "price": { "amount": "1" }, "stock": 1 }));
    let command = CreateListing::new(draft, unknown, None).unwrap();
    create_listing(app, &seller(), &command).await.unwrap().answer.variants[0].id
}

fn movement(variant: VariantId, body: Value, scope: Option<IdempotencyScope>) -> RecordMovement {
    let draft: MovementDraft = serde_json::from_value(body).unwrap();
    RecordMovement::new(variant, None, scope, draft, Vec::new()).unwrap()
}

/// The journal in its order: aggregate and version.
async fn journal(app: &CommandApp) -> Vec<(String, i64)> {
    let select = "select aggregate, version from command.events join command.outbox using (seq) order by seq";
    sqlx::query_as(select).fetch_all(&app.database.single).await.unwrap()
}

fn named(events: &[(&str, i64)]) -> Vec<(String, i64)> {
    events.iter().map(|(aggregate, version)| ((*aggregate).to_owned(), *version)).collect()
}

#[tokio::test]
async fn two_movements_of_one_stock_share_a_commit() {
    let Some(database) = TestDatabase::create().await else { return };
    let app = &database.app;
    let variant = a_variant(app).await;

    let mut tx = transaction::begin(app, DEADLINE).await.unwrap();
    let out = movement(variant, json!({ "type": "out", "quantity": 1 }), None);
    let first = record_movement_in(&mut tx, &seller(), &out, now()).await.unwrap().answer;
    let back = movement(variant, json!({ "type": "in", "quantity": 5 }), None);
    let second = record_movement_in(&mut tx, &seller(), &back, now()).await.unwrap().answer;
    assert_eq!(((first.version, first.on_hand), (second.version, second.on_hand)), ((2, 0), (3, 5)));
    assert_eq!(journal(app).await, named(&[("stock", 1), ("listing", 1)]), "nothing is seen before the commit");
    transaction::end(tx, Ok::<_, StockError>(())).await.unwrap();
    let all = [("stock", 1), ("listing", 1), ("stock", 2), ("listing", 2), ("stock", 3), ("listing", 3)];
    assert_eq!(journal(app).await, named(&all));

    let mut tx = transaction::begin(app, DEADLINE).await.unwrap();
    record_movement_in(&mut tx, &seller(), &back, now()).await.unwrap();
    let too_many = movement(variant, json!({ "type": "out", "quantity": 50 }), None);
    let refused = record_movement_in(&mut tx, &seller(), &too_many, now()).await;
    assert!(matches!(refused, Err(StockError::Insufficient { available: 10 })), "{refused:?}");
    transaction::end(tx, refused).await.unwrap_err();
    assert_eq!(journal(app).await, named(&all), "the first of the two is rolled back with the second");
    database.drop().await;
}

#[tokio::test]
async fn a_movement_with_a_key_is_recorded_once() {
    let Some(database) = TestDatabase::create().await else { return };
    let app = &database.app;
    let variant = a_variant(app).await;
    let once =
        || movement(variant, json!({ "type": "in", "quantity": 2 }), Some(IdempotencyScope::new(SELLER, "move", "k", b"{}")));
    let effect = |outcome: &CommandOutcome<Stock>| (outcome.effect, outcome.answer.on_hand, outcome.token.encode());

    let first = record_movement(app, &seller(), &once()).await.unwrap();
    let again = record_movement(app, &seller(), &once()).await.unwrap();
    assert_eq!(effect(&first), (Effect::Written, 3, first.token.encode()));
    assert_eq!(effect(&again), (Effect::Replayed, 3, first.token.encode()));
    database.drop().await;
}
