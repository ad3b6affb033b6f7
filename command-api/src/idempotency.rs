//! A request that carries an idempotency key is done once: repeating it gives the first answer.
//!
//! The key is stored in the command's own transaction, so a command that was refused, or whose transaction was lost, leaves no
//! key and may be sent again with the same one. The stored answer is the state of an aggregate at a version, which is rendered again
//! from the journal, or a document.

use std::time::Duration;

use events::{Aggregate, AggregateKey, AggregateKind, ConsistencyToken, Event, Headers, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::command::{CommandError, CommandOutcome, Effect};
use crate::database::DatabaseError;

/// Keys are kept for 24 hours; the statements below say so too.
const SWEEP_EVERY: Duration = Duration::from_mins(15);
const SWEPT_AT_ONCE: i64 = 10_000;

/// Identifies a request that must be done only once.
#[derive(Debug, Clone)]
pub struct IdempotencyScope {
    user: UserId,
    /// What the request does, ids included: the same key on another listing is another request.
    operation: String,
    key: String,
    /// Of the request's body. The same key with another body is refused.
    digest: [u8; 32],
}

impl IdempotencyScope {
    pub fn new(user: UserId, operation: impl Into<String>, key: &str, body: &[u8]) -> Self {
        Self { user, operation: operation.into(), key: key.to_owned(), digest: Sha256::digest(body).into() }
    }

    /// The number of the advisory lock. It is the same for the same request in every process.
    fn lock(&self) -> i64 {
        let mut hash = Sha256::new();
        hash.update(self.user.0.as_bytes());
        for part in [&self.operation, &self.key] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(first)
    }
}

/// An answer that is stored under an idempotency key.
pub trait IdempotentAnswer: Sized {
    /// The form in which the answer is stored.
    fn store(&self) -> Result<StoredAnswer<(AggregateKey, u64)>, DatabaseError>;

    fn restore(stored: StoredAnswer<Event>) -> Result<Self, DatabaseError>;
}

/// The two forms of a stored answer.
#[derive(Debug)]
pub enum StoredAnswer<S> {
    /// The state of an aggregate at a version. `S` names it when it is stored, and is the journal's event when it is read.
    State(S),
    /// Any other answer.
    Document(Value),
}

/// A stored answer is a document where the command answers with a state, or the reverse, or the state is missing.
#[derive(Debug, thiserror::Error)]
#[error("the stored answer of an idempotency key is not of the form that the command answers with")]
struct UnexpectedAnswerForm;

impl<A: Aggregate> IdempotentAnswer for A {
    fn store(&self) -> Result<StoredAnswer<(AggregateKey, u64)>, DatabaseError> {
        Ok(StoredAnswer::State((AggregateKey::of::<A>(self.id()), self.version())))
    }

    fn restore(stored: StoredAnswer<Event>) -> Result<Self, DatabaseError> {
        let state = match stored {
            StoredAnswer::State(event) => event.state::<A>().map_err(DatabaseError::document)?,
            StoredAnswer::Document(_) => None,
        };
        state.ok_or_else(|| DatabaseError::document(UnexpectedAnswerForm))
    }
}

/// The column `headers`: what a replay needs besides the answer.
#[derive(Debug, Serialize, Deserialize)]
struct StoredHeaders {
    #[serde(rename = "Consistency-Token")]
    consistency_token: String,
}

/// Looks up the first answer to this request. If there is none, the key is locked until the transaction ends, and the same request
/// is refused meanwhile. Call it before any row is locked: a request that is refused must not have waited.
pub async fn first_answer<T: IdempotentAnswer>(
    connection: &mut PgConnection,
    scope: Option<&IdempotencyScope>,
) -> Result<Option<CommandOutcome<T>>, CommandError> {
    let Some(scope) = scope else { return Ok(None) };
    // An insert of the key would wait for the whole of the other transaction; this does not wait.
    let locked = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "locked!""#, scope.lock())
        .fetch_one(&mut *connection)
        .await?;
    // A statement of its own: only a snapshot taken after the lock surely contains what its former holder committed. It runs without
    // the lock too: a first answer is final, and another holder of the lock may itself be a repeat of this request.
    let stored = sqlx::query!(
        r#"
        with expired as (
            delete from command.idempotency_keys
             where caller = $1 and route = $2 and key = $3 and created_at < clock_timestamp() - interval '24 hours'
        )
        select stored.body_digest, stored.headers as "stored_headers: Json<StoredHeaders>", stored.aggregate, stored.aggregate_id,
               stored.answer, event.headers as "headers?: Json<Headers>", event.body as "body?"
          from command.idempotency_keys as stored
          left join command.events as event using (aggregate, aggregate_id, version)
         where caller = $1 and route = $2 and key = $3 and created_at >= clock_timestamp() - interval '24 hours'
        "#,
        scope.user.0,
        scope.operation,
        scope.key
    )
    .fetch_optional(connection)
    .await?;
    let Some(stored) = stored else { return if locked { Ok(None) } else { Err(CommandError::KeyInProgress) } };
    if stored.body_digest != scope.digest {
        return Err(CommandError::KeyMismatch);
    }
    let answer = match (stored.answer, stored.aggregate, stored.aggregate_id, stored.headers, stored.body) {
        (Some(document), ..) => StoredAnswer::Document(document),
        (None, Some(aggregate), Some(id), Some(headers), Some(body)) => {
            let kind: AggregateKind = aggregate.parse().map_err(DatabaseError::document)?;
            let header = |name: &str| headers.get(name).map(String::as_str);
            StoredAnswer::State(Event::decode(AggregateKey { kind, id }, header, body).map_err(DatabaseError::document)?)
        }
        _ => return Err(DatabaseError::document(anyhow::anyhow!("the journal lacks the event of an idempotency key")).into()),
    };
    let token = ConsistencyToken::decode(&stored.stored_headers.consistency_token).map_err(DatabaseError::document)?;
    Ok(Some(CommandOutcome::new(T::restore(answer)?, token, Effect::Replayed)))
}

/// Stores the outcome as the first answer to this request.
pub async fn keep<T: IdempotentAnswer>(
    connection: &mut PgConnection,
    scope: Option<&IdempotencyScope>,
    outcome: &CommandOutcome<T>,
) -> Result<(), CommandError> {
    let Some(scope) = scope else { return Ok(()) };
    let (state, document) = match outcome.answer.store()? {
        StoredAnswer::State(state) => (Some(state), None),
        StoredAnswer::Document(document) => (None, Some(document)),
    };
    sqlx::query!(
        "insert into command.idempotency_keys (caller, route, key, body_digest, headers, aggregate, aggregate_id, version, answer)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        scope.user.0,
        scope.operation,
        scope.key,
        &scope.digest[..],
        Json(StoredHeaders { consistency_token: outcome.token.encode() }) as _,
        state.map(|(aggregate, _)| aggregate.kind.name()),
        state.map(|(aggregate, _)| aggregate.id),
        state.map(|(_, version)| version.cast_signed()),
        document
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes expired keys for as long as the process runs. A key that is not deleted in time is treated as expired all the same.
pub async fn forget_expired(database: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
    let mut turns = tokio::time::interval(SWEEP_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = turns.tick() => {}
        }
        match delete_expired(&database).await {
            Ok(keys) => debug!(keys, "Deleted {keys} expired idempotency keys"),
            Err(error) => warn!(error = %error, "Will delete expired idempotency keys later: {error}"),
        }
    }
}

/// Deletes in parts, because after a long stop one statement could exceed its timeout.
async fn delete_expired(database: &PgPool) -> sqlx::Result<u64> {
    let mut keys = 0;
    loop {
        let deleted = sqlx::query!(
            "delete from command.idempotency_keys where ctid = any(array(
               select ctid from command.idempotency_keys where created_at < clock_timestamp() - interval '24 hours' limit $1))",
            SWEPT_AT_ONCE
        );
        let deleted = deleted.execute(database).await?.rows_affected();
        keys += deleted;
        if deleted < SWEPT_AT_ONCE.cast_unsigned() {
            return Ok(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::listings::tests::SELLER;
    use crate::test_database::{DEADLINE, TestDatabase};
    use crate::transaction;

    /// An answer that is no state of an aggregate.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Booking {
        number: u32,
    }

    impl IdempotentAnswer for Booking {
        fn store(&self) -> Result<StoredAnswer<(AggregateKey, u64)>, DatabaseError> {
            Ok(StoredAnswer::Document(serde_json::to_value(self).map_err(DatabaseError::document)?))
        }

        fn restore(stored: StoredAnswer<Event>) -> Result<Self, DatabaseError> {
            let StoredAnswer::Document(document) = stored else { return Err(DatabaseError::document(UnexpectedAnswerForm)) };
            serde_json::from_value(document).map_err(DatabaseError::document)
        }
    }

    /// Books under a key: the first booking gets this number.
    async fn book(database: &TestDatabase, number: u32, key: &str, body: &[u8]) -> Result<CommandOutcome<Booking>, CommandError> {
        let scope = Some(IdempotencyScope::new(SELLER, "book", key, body));
        let mut tx = transaction::begin(&database.app, DEADLINE).await?;
        let booked = async {
            if let Some(first) = first_answer(&mut tx, scope.as_ref()).await? {
                return Ok(first);
            }
            let outcome = CommandOutcome::new(Booking { number }, ConsistencyToken::of(&[]), Effect::Written);
            keep(&mut tx, scope.as_ref(), &outcome).await?;
            Ok(outcome)
        };
        let outcome = booked.await;
        transaction::end(tx, outcome).await
    }

    #[tokio::test]
    async fn an_answer_that_is_no_state_is_kept_too() {
        let Some(database) = TestDatabase::create().await else { return };
        let first = book(&database, 7, "a", b"{}").await.unwrap();
        let again = book(&database, 8, "a", b"{}").await.unwrap();
        assert_eq!((first.effect, again.effect), (Effect::Written, Effect::Replayed));
        assert_eq!((again.answer, again.token), (Booking { number: 7 }, first.token));
        assert!(matches!(book(&database, 9, "a", b"[]").await, Err(CommandError::KeyMismatch)));
        assert_eq!(book(&database, 9, "b", b"{}").await.unwrap().answer, Booking { number: 9 });
        database.drop().await;
    }

    #[tokio::test]
    async fn a_key_has_one_form_of_answer() {
        let Some(database) = TestDatabase::create().await else { return };
        let insert = async |aggregate: Option<&str>, answer: Option<Value>| {
            sqlx::query(
                "insert into command.idempotency_keys (caller, route, key, body_digest, status, headers, aggregate, aggregate_id,
                                                       version, answer)
                 values ($1, 'r', gen_random_uuid()::text, '', 201, '{}', $2, $1, 1, $3)",
            )
            .bind(SELLER.0)
            .bind(aggregate)
            .bind(answer)
            .execute(&database.app.database.single)
            .await
        };
        insert(Some("listing"), None).await.unwrap();
        for (aggregate, answer) in [(None, None), (Some("listing"), Some(json!(1))), (None, Some(json!(1)))] {
            let error = insert(aggregate, answer).await.unwrap_err();
            let constraint = error.as_database_error().and_then(|error| error.constraint());
            assert_eq!(constraint, Some("idempotency_keys_one_answer"), "{aggregate:?}");
        }
        database.drop().await;
    }
}
