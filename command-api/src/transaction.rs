//! A command's transaction as a whole: ended before anyone is told of its outcome, and run again if it lost a race.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use sqlx::{Postgres, Transaction};
use tracing::debug;

use crate::database::commit;
use crate::refusal::{Refused, Repeatable};

/// A lost race is run again this often.
const RACES: usize = 8;
const RACE_PAUSE: Duration = Duration::from_millis(5);
const RACE_PAUSE_CAP: Duration = Duration::from_millis(100);

/// Ends a transaction before anyone is told of its outcome: commits what was done, takes back what was refused.
///
/// A transaction that is only dropped is taken back a moment later. Until then the lock of its idempotency key is held, and the
/// next request with that key would be told that the last one still runs.
pub async fn end<T, E: From<Refused>>(transaction: Transaction<'static, Postgres>, outcome: Result<T, E>) -> Result<T, E> {
    match outcome {
        Ok(done) => {
            commit(transaction).await.map_err(Refused::from)?;
            Ok(done)
        }
        Err(refused) => {
            if let Err(error) = transaction.rollback().await {
                debug!(error = %error, "The connection broke before its transaction was taken back: {error}");
            }
            Err(refused)
        }
    }
}

/// Runs a transaction again, from its beginning, if it lost a race.
pub async fn repeated<T, E: Repeatable, F: Future<Output = Result<T, E>>>(work: impl FnMut() -> F) -> Result<T, E> {
    let pauses =
        ExponentialBuilder::new().with_min_delay(RACE_PAUSE).with_max_delay(RACE_PAUSE_CAP).with_max_times(RACES).with_jitter();
    work.retry(pauses).sleep(tokio::time::sleep).when(E::lost_race).await
}
