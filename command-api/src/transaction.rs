//! The transaction of a command: its beginning, its end before the client is answered, and its retry after a lost race.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use sqlx::{Postgres, Transaction};
use tracing::debug;

use crate::command::{CommandApp, CommandError, LostRace};
use crate::database::commit;

/// Retries after a lost race.
const RETRIES: usize = 8;
const BACKOFF_BASE: Duration = Duration::from_millis(5);
const BACKOFF_CAP: Duration = Duration::from_millis(100);

/// Begins a transaction in which no statement takes longer than the command's deadline.
pub async fn begin(app: &CommandApp, deadline: Duration) -> Result<Transaction<'static, Postgres>, CommandError> {
    Ok(app.database.begin(deadline).await?)
}

/// Ends a transaction before its client is answered: commits after a success, rolls back after an error.
///
/// A transaction that is only dropped is rolled back a moment later. Until then the lock of its idempotency key is held, and the
/// next request with that key would be refused as still running.
pub async fn end<T, E: From<CommandError>>(transaction: Transaction<'static, Postgres>, outcome: Result<T, E>) -> Result<T, E> {
    match outcome {
        Ok(done) => {
            commit(transaction).await.map_err(CommandError::from)?;
            Ok(done)
        }
        Err(error) => {
            if let Err(error) = transaction.rollback().await {
                debug!(error = %error, "The connection broke during the rollback of a transaction: {error}");
            }
            Err(error)
        }
    }
}

/// Runs a transaction again, from its beginning, if it lost a race (40001, 40P01, or a version that another command made first).
pub async fn retried<T, E: LostRace, F: Future<Output = Result<T, E>>>(work: impl FnMut() -> F) -> Result<T, E> {
    let backoff =
        ExponentialBuilder::new().with_min_delay(BACKOFF_BASE).with_max_delay(BACKOFF_CAP).with_max_times(RETRIES).with_jitter();
    work.retry(backoff).sleep(tokio::time::sleep).when(E::is_lost_race).await
}
