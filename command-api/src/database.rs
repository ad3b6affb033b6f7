//! Connections to Postgres, how long a statement may take on them, and what a failure there means.

use std::time::Duration;

use service::postgres::checked;
use service::problem::Kind;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

/// A command that gets no free connection within this time is refused.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(3);
/// A process that is stopped in the middle of a transaction holds row locks for at most this long (PROTOCOL W8).
const IDLE_IN_TRANSACTION: &str = "10s";
/// Limit of a command that is one statement. A transaction sets its own limit (PROTOCOL W7).
const SINGLE_STATEMENT: &str = "9500ms";
const BATCH_STATEMENT: &str = "19500ms";
/// A statement times out this long before its command's deadline, so that the client still gets the answer that nothing was done.
const MARGIN: Duration = Duration::from_millis(500);
/// Batches have a small pool of their own, so that they wait for each other and not for single commands.
const BATCH_CONNECTIONS: u32 = 4;
/// Connections that stay open when idle, so that the first commands after a quiet hour do not wait for a new one.
const KEPT_OPEN: u32 = 2;

/// A connection whose command was cancelled must answer within this time to be used again. By then Postgres has ended the statement.
const RECOVERS_WITHIN: Duration = Duration::from_secs(2);

/// The journal's unique constraint on an aggregate's version.
const VERSION_KEY: &str = "events_version_key";
/// The end of the name that Postgres gives to every primary key.
const PRIMARY_KEY: &str = "_pkey";

/// Sessions for single commands, and others for batches.
#[derive(Debug, Clone)]
pub struct CommandDatabase {
    pub single: PgPool,
    pub batch: PgPool,
}

impl CommandDatabase {
    /// Connects when first needed: an absent Postgres makes us unready, not dead.
    pub fn new(options: &PgConnectOptions, connections: u32) -> Self {
        let pool = |connections, statement_timeout| {
            let options = options.clone().options([
                ("statement_timeout", statement_timeout),
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
            ]);
            let pool = PgPoolOptions::new()
                .min_connections(KEPT_OPEN.min(connections))
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_WITHIN);
            checked(pool, RECOVERS_WITHIN).connect_lazy_with(options)
        };
        Self { single: pool(connections, SINGLE_STATEMENT), batch: pool(BATCH_CONNECTIONS, BATCH_STATEMENT) }
    }

    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        Ok(self.single.acquire().await?)
    }

    pub async fn batch_connection(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        Ok(self.batch.acquire().await?)
    }

    /// Begins a transaction in which no statement takes longer than the command's deadline.
    pub async fn begin(&self, deadline: Duration) -> Result<Transaction<'static, Postgres>, DatabaseError> {
        begin(&self.single, deadline).await
    }

    pub async fn begin_batch(&self, deadline: Duration) -> Result<Transaction<'static, Postgres>, DatabaseError> {
        begin(&self.batch, deadline).await
    }

    /// Closes both pools after what is running on them has ended.
    pub async fn close(&self) {
        tokio::join!(self.single.close(), self.batch.close());
    }
}

async fn begin(pool: &PgPool, deadline: Duration) -> Result<Transaction<'static, Postgres>, DatabaseError> {
    // One round trip. The number is ours; no text of a client gets here.
    let statement =
        AssertSqlSafe(format!("begin; set local statement_timeout = {}", deadline.saturating_sub(MARGIN).as_millis()));
    let pool = pool.clone();
    // In a task of its own, which continues if the command is cancelled. sqlx 0.9.0 counts a transaction only after the answer to BEGIN:
    // a connection whose BEGIN was sent and not waited for would return to the pool inside an open transaction. What other
    // commands then write on it would never be committed, although their clients get a success.
    let transaction = tokio::spawn(async move { pool.begin_with(statement).await });
    Ok(transaction.await.map_err(|_| sqlx::Error::WorkerCrashed)??)
}

/// Commits. A connection that breaks during the commit leaves the outcome unknown.
pub async fn commit(transaction: Transaction<'static, Postgres>) -> Result<(), DatabaseError> {
    transaction.commit().await.map_err(|error| DatabaseError::from(error).while_committing())
}

/// The text of a lost race that the retries did not win.
pub const CONCURRENT_CHANGES: &str = "Concurrent changes; send the request again";

/// What an error of the database means for the command that met it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{CONCURRENT_CHANGES}")]
    LostRace(#[source] sqlx::Error),
    /// Another row has this value of a unique constraint.
    #[error("{constraint} refused a value that is taken")]
    Taken { constraint: String, source: sqlx::Error },
    /// Nothing was done.
    #[error("The database does not answer at the moment; nothing was changed")]
    Unavailable(#[source] sqlx::Error),
    #[error("Outcome unknown: the connection was lost while committing")]
    Unknown(#[source] sqlx::Error),
    #[error("The database refused a statement")]
    Broken(#[source] sqlx::Error),
    #[error("Stored JSON cannot be encoded or decoded")]
    Document(#[source] anyhow::Error),
}

impl DatabaseError {
    /// An event or an answer that this program wrote and cannot read, or cannot write: our mistake.
    pub fn document(error: impl Into<anyhow::Error>) -> Self {
        Self::Document(error.into())
    }

    /// The same error of a statement that commits by itself, or of the commit.
    #[must_use]
    pub fn while_committing(self) -> Self {
        if let Self::Unavailable(error) = self {
            return if was_rolled_back(&error) { Self::Unavailable(error) } else { Self::Unknown(error) };
        }
        self
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::LostRace(_) | Self::Unavailable(_) => Kind::Unavailable,
            Self::Unknown(_) => Kind::Timeout,
            Self::Taken { .. } | Self::Broken(_) | Self::Document(_) => Kind::Internal,
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    /// Of a statement within a transaction, which is rolled back.
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            let is_unavailable = matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
            );
            return if is_unavailable { Self::Unavailable(error) } else { Self::Broken(error) };
        };
        let code = database.code().unwrap_or_default();
        match (&*code, database.constraint()) {
            ("40001" | "40P01", _) => Self::LostRace(error),
            // Two commands made the same version, or the same id.
            ("23505", Some(constraint)) if constraint == VERSION_KEY || constraint.ends_with(PRIMARY_KEY) => {
                Self::LostRace(error)
            }
            ("23505", Some(constraint)) => Self::Taken { constraint: constraint.to_owned(), source: error },
            // Connection, read-only, idle for too long, login, resources, shutdown, timeout and disk: the server is at fault, not
            // the statement.
            ("25006" | "25P03", _) => Self::Unavailable(error),
            (code, _) if ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Self::Unavailable(error),
            _ => Self::Broken(error),
        }
    }
}

/// Whether the server itself rolled the statement back: it reports an ERROR, such as a timeout or a full disk. If it ends the
/// session or shuts down instead, a commit that it had received may count after the restart.
fn was_rolled_back(error: &sqlx::Error) -> bool {
    let reported = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    reported.is_some_and(|error| error.severity() == PgSeverity::Error)
}
