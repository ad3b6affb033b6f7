//! Pools of connections to Postgres that keep only those which answer.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

/// Reads the URL of a database, which `variable` holds. The reason why it cannot be used is not told: it may show the password.
///
/// # Errors
/// If a parameter of it is unknown or wrong.
pub fn options(variable: &str, url: &str) -> anyhow::Result<PgConnectOptions> {
    url.parse().map_err(|_| anyhow::anyhow!("{variable} cannot be used: a parameter of it (as sslmode) is unknown or wrong"))
}

/// A connection that came back within this time is believed to work: asking would be a second round trip for every statement.
const RECENT: Duration = Duration::from_secs(1);

/// Has a pool ask a connection that comes back whether it still answers, and one that has lain idle once more before it is lent.
/// `recovers_within` is for a connection on which a question was given up: longer than what may still run on it, if it is to be
/// kept.
///
/// sqlx asks both by itself, but the first without a bound: a question to a server that is gone would keep its place in the pool
/// for as long as TCP waits.
#[must_use]
pub fn that_answer(pool: PgPoolOptions, recovers_within: Duration) -> PgPoolOptions {
    pool.test_before_acquire(false)
        .before_acquire(|connection, used| Box::pin(async move { Ok(used.idle_for < RECENT || connection.ping().await.is_ok()) }))
        .after_release(move |connection, _| Box::pin(still_answers(connection, recovers_within)))
}

async fn still_answers(connection: &mut PgConnection, within: Duration) -> sqlx::Result<bool> {
    timeout(within, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(true)
}
