//! A request that carries an `Idempotency-Key` is done once: repeating it gives the first answer.
//!
//! The key is kept in the command's own transaction, so a request that was refused, or whose transaction was lost, leaves
//! no trace and may come again with the same key. The body of the answer is rendered again from the journal.

use std::time::Duration;

use events::{Aggregate, AggregateKey, AggregateKind, ConsistencyToken, DecodeError, Event, Headers, UserId};
use serde::{Deserialize, Serialize};
use service::http::IdempotencyKey;
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::database::Failure;
use crate::outcome::Done;
use crate::refusal::Refused;

/// Keys are kept for 24 hours; the statements below say so too.
const SWEEP_EVERY: Duration = Duration::from_mins(15);
const SWEPT_AT_ONCE: i64 = 10_000;

/// A request that asks to be done once.
#[derive(Debug, Clone)]
pub struct Keyed {
    caller: UserId,
    /// Method and path: the same key on another listing is another request.
    route: String,
    key: String,
    digest: [u8; 32],
}

/// What a repeated request is answered with, besides the state.
#[derive(Debug, Serialize, Deserialize)]
struct KeptHeaders {
    #[serde(rename = "Consistency-Token")]
    consistency_token: String,
}

impl Keyed {
    pub fn new(caller: UserId, route: impl Into<String>, key: &IdempotencyKey, body: &[u8]) -> Self {
        Self { caller, route: route.into(), key: key.as_str().to_owned(), digest: Sha256::digest(body).into() }
    }

    /// The same for the same request in every process.
    fn lock(&self) -> i64 {
        let mut hash = Sha256::new();
        hash.update(self.caller.0.as_bytes());
        for part in [&self.route, &self.key] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(first)
    }
}

/// The first answer to this request, if it had one. Otherwise the key is ours until the transaction ends, and whoever comes
/// with it meanwhile is told to wait. Must be the transaction's first statement.
pub async fn first_answer<T: Aggregate>(
    connection: &mut PgConnection,
    keyed: Option<&Keyed>,
) -> Result<Option<Done<T>>, Refused> {
    let Some(keyed) = keyed else { return Ok(None) };
    // Inserting the key would make us wait for the whole of the other's transaction; this does not wait.
    let locked = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "locked!""#, keyed.lock())
        .fetch_one(&mut *connection)
        .await?;
    // A statement of its own: only a snapshot taken after the lock surely shows what its former holder committed. Without the lock
    // too: a first answer is final, and whoever holds the lock may only be repeating it.
    let kept = sqlx::query!(
        r#"
        with expired as (
            delete from command.idempotency_keys
             where caller = $1 and route = $2 and key = $3 and created_at < clock_timestamp() - interval '24 hours'
        )
        select kept.body_digest, kept.headers as "kept_headers: Json<KeptHeaders>", kept.aggregate, kept.aggregate_id, kept.version,
               event.headers as "headers: Json<Headers>", event.body
          from command.idempotency_keys as kept
          join command.events as event using (aggregate, aggregate_id, version)
         where caller = $1 and route = $2 and key = $3 and created_at >= clock_timestamp() - interval '24 hours'
        "#,
        keyed.caller.0,
        keyed.route,
        keyed.key
    )
    .fetch_optional(connection)
    .await?;
    let Some(kept) = kept else { return if locked { Ok(None) } else { Err(Refused::KeyInProgress) } };
    if kept.body_digest != keyed.digest {
        return Err(Refused::KeyMismatch);
    }
    let kind: AggregateKind = kept.aggregate.parse().map_err(Failure::document)?;
    let key = AggregateKey { kind, id: kept.aggregate_id };
    let event = Event::decode(key, |name| kept.headers.get(name).map(String::as_str), kept.body).map_err(Failure::document)?;
    let state = event.state::<T>().map_err(Failure::document)?.ok_or_else(|| Failure::document(DecodeError::Disagrees))?;
    let token = ConsistencyToken::decode(&kept.kept_headers.consistency_token).map_err(Failure::document)?;
    Ok(Some(Done { state, token, replayed: true }))
}

/// Keeps the answer: the state of the aggregate at this version, and the token.
pub async fn keep(
    connection: &mut PgConnection,
    keyed: Option<&Keyed>,
    status: http::StatusCode,
    (aggregate, version): (AggregateKey, u64),
    token: &ConsistencyToken,
) -> Result<(), Refused> {
    let Some(keyed) = keyed else { return Ok(()) };
    sqlx::query!(
        "insert into command.idempotency_keys (caller, route, key, body_digest, status, headers, aggregate, aggregate_id, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        keyed.caller.0,
        keyed.route,
        keyed.key,
        &keyed.digest[..],
        i16::try_from(status.as_u16()).unwrap_or_default(),
        Json(KeptHeaders { consistency_token: token.encode() }) as _,
        aggregate.kind.name(),
        aggregate.id,
        version.cast_signed()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes expired keys for as long as the process runs. One that is missed is expired all the same.
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

/// In parts: after a long stop there may be more than one statement can delete in its time.
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
