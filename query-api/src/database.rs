//! Postgres, schema `projection`, as role `listings_query`: read only.

use std::time::Duration;

use service::metrics::{Errors, Queries};
use service::postgres::{self, ReadinessConnection};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::breaker::Breaker;
use crate::dependency::{Dependency, Unanswered, Verdict};

/// A connection that is not to be had by then is as good as none.
const ACQUIRE_WITHIN: Duration = Duration::from_millis(600);
/// Kept open, so that the first readers after a quiet time do not wait for a handshake.
const KEPT_OPEN: u32 = 2;
/// Below the shortest deadline of a route that has nobody else to ask (3 s, a variant's stock). Longer than the two bounds that it
/// contains, so that only a server that says nothing at all exceeds it.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_650);
/// Postgres itself ends a statement that takes longer, in milliseconds.
const STATEMENT_TIMEOUT: &str = "2000";
/// A connection on which a question was given up, and which says nothing for this long, is not used again. Longer than the
/// statement that may still run on it.
const RECOVERS_WITHIN: Duration = Duration::from_millis(2_500);

/// The name of Postgres among the dependencies.
pub const POSTGRES: &str = "postgres";

#[derive(Debug)]
pub struct Database {
    pub pool: PgPool,
    readiness_connection: ReadinessConnection,
    dependency: Dependency,
    queries: Queries,
}

impl Database {
    /// Connects when it is first asked: an absent Postgres makes nothing fail here.
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
        Ok(Self {
            pool,
            readiness_connection,
            dependency: Dependency::new(POSTGRES, breaker, Some(ANSWER_WITHIN), errors),
            queries,
        })
    }

    /// Runs a statement on `self.pool`; `operation` says what it is for.
    pub async fn ask<T>(
        &self,
        operation: &'static str,
        statement: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Unanswered> {
        self.dependency.ask(self.queries.time(operation, statement), verdict).await
    }

    /// Whether Postgres answers, whatever the state of the breaker and of the work pool.
    pub async fn ping(&self) -> sqlx::Result<()> {
        self.readiness_connection.ping().await
    }
}

/// SQLSTATE classes that are about the server; all others are about the statement.
fn verdict(error: &sqlx::Error) -> Verdict {
    const QUERY_CANCELED: &str = "57014";
    let Some(database) = error.as_database_error() else { return Verdict::Outage };
    let code = database.code().unwrap_or_default();
    if code == QUERY_CANCELED {
        return Verdict::CutShort;
    }
    let about_the_server = ["08", "25", "28", "3D", "42", "53", "57", "58"].iter().any(|class| code.starts_with(class));
    if about_the_server { Verdict::Outage } else { Verdict::Refusal }
}
