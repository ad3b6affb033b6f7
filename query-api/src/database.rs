//! Postgres, schema `projection`, as role `listings_query`: read only.

use std::time::Duration;

use service::metrics::{Errors, Queries};
use service::postgres::{self, ReadinessConnection};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::breaker::Breaker;
use crate::store_guard::{FailureClass, StoreError, StoreGuard};

/// Timeout for getting a connection from the pool.
const ACQUIRE_WITHIN: Duration = Duration::from_millis(600);
/// Connections kept open while idle, so that the first readers after a quiet time do not wait for a handshake.
const KEPT_OPEN: u32 = 2;
/// Timeout of a whole call. It is below the shortest deadline of a route without a fallback (3 s, a variant's stock), and above the
/// sum of the two timeouts within it, so that only a server that does not react at all exceeds it.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_650);
/// Postgres cancels a statement that takes longer, in milliseconds.
const STATEMENT_TIMEOUT: &str = "2000";
/// A connection whose call was abandoned is closed unless it answers within this time, which is longer than the statement timeout.
const RECOVERS_WITHIN: Duration = Duration::from_millis(2_500);

/// The name of Postgres in metrics and errors.
pub const POSTGRES: &str = "postgres";

#[derive(Debug)]
pub struct Database {
    pub pool: PgPool,
    readiness_connection: ReadinessConnection,
    guard: StoreGuard,
    queries: Queries,
}

impl Database {
    /// Connects with the first call: this does not fail while Postgres is unavailable.
    pub fn new(url: &str, connections: u32, breaker: Breaker, errors: Errors, queries: Queries) -> anyhow::Result<Self> {
        let options = postgres::options("DATABASE_URL", url)?
            .application_name("query-api")
            .options([("statement_timeout", STATEMENT_TIMEOUT), ("default_transaction_read_only", "on")]);
        let readiness_connection = ReadinessConnection::new(&options);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(KEPT_OPEN.min(connections))
            .acquire_timeout(ACQUIRE_WITHIN);
        let pool = postgres::checked(pool, RECOVERS_WITHIN).connect_lazy_with(options);
        let guard = StoreGuard::new(POSTGRES, breaker, Some(ANSWER_WITHIN), errors);
        Ok(Self { pool, readiness_connection, guard, queries })
    }

    /// Runs a statement on `self.pool`; `operation` names it in metrics.
    pub async fn call<T>(
        &self,
        operation: &'static str,
        statement: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        self.guard.call(self.queries.time(operation, statement), classify).await
    }

    /// Whether Postgres answers, regardless of the circuit breaker and of the work pool.
    pub async fn ping(&self) -> sqlx::Result<()> {
        self.readiness_connection.ping().await
    }
}

/// Some SQLSTATE classes are about the server; all others are about the statement.
fn classify(error: &sqlx::Error) -> FailureClass {
    const QUERY_CANCELED: &str = "57014";
    let Some(database) = error.as_database_error() else { return FailureClass::Outage };
    let code = database.code().unwrap_or_default();
    if code == QUERY_CANCELED {
        return FailureClass::Canceled;
    }
    let about_the_server = ["08", "25", "28", "3D", "42", "53", "57", "58"].iter().any(|class| code.starts_with(class));
    if about_the_server { FailureClass::Outage } else { FailureClass::Rejection }
}
