//! Connections to Postgres: pools that keep only connections which answer, and one connection for health checks.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::time::timeout;

/// A connection that was used within this time is lent without a check, which would cost every statement a second round trip.
const RECENT: Duration = Duration::from_secs(1);

/// Timeout of each step of a health check: getting the connection, the statement, and the check of a connection whose statement was
/// given up. Less than the operations port waits for a store.
const READINESS_WITHIN: Duration = Duration::from_secs(1);
/// The same for Postgres itself, in milliseconds.
const READINESS_STATEMENT: &str = "1000";

/// Reads the URL of a database from the variable of this name. The error does not show the URL, which contains the password.
///
/// # Errors
/// If a parameter of the URL is unknown or wrong.
pub fn options(variable: &str, url: &str) -> anyhow::Result<PgConnectOptions> {
    url.parse().map_err(|_| anyhow::anyhow!("{variable} cannot be used: a parameter of it (as sslmode) is unknown or wrong"))
}

/// Configures a pool to check connections: one that is returned, and one that was idle before it is lent again.
///
/// `recovers_within` bounds the check of a returned connection, on which a statement may still run that its caller gave up. To keep
/// such a connection, it must be longer than the statement may take. A connection that does not answer in time is closed.
///
/// sqlx has both checks, but no bound for the first: a connection to a server that has vanished would occupy its place in the pool
/// until TCP gives up.
#[must_use]
pub fn checked(pool: PgPoolOptions, recovers_within: Duration) -> PgPoolOptions {
    pool.test_before_acquire(false)
        .before_acquire(|connection, used| Box::pin(async move { Ok(used.idle_for < RECENT || connection.ping().await.is_ok()) }))
        .after_release(move |connection, _| Box::pin(still_answers(connection, recovers_within)))
}

async fn still_answers(connection: &mut PgConnection, within: Duration) -> sqlx::Result<bool> {
    timeout(within, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(true)
}

/// One connection of its own for health checks. With it, a full work pool does not make a healthy program unready.
#[derive(Debug, Clone)]
pub struct ReadinessConnection(PgPool);

impl ReadinessConnection {
    /// Connects with the first check.
    #[must_use]
    pub fn new(options: &PgConnectOptions) -> Self {
        let options = options.clone().options([("statement_timeout", READINESS_STATEMENT)]);
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(READINESS_WITHIN);
        Self(checked(one, READINESS_WITHIN).connect_lazy_with(options))
    }

    /// Whether Postgres answers a statement in time.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> sqlx::Result<()> {
        sqlx::query("select 1").execute(&self.0).await.map(drop)
    }

    pub async fn close(&self) {
        self.0.close().await;
    }
}
