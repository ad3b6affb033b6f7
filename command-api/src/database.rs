//! Connections to Postgres, how long a statement may take on them, and what a failure there means.

use std::time::Duration;

use service::postgres::checked;
use service::problem::Kind;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

/// A command that finds no free connection within this time is one too many.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(3);
/// A process that was stopped in the middle of a transaction must not keep others out for longer (PROTOCOL W8).
const IDLE_IN_TRANSACTION: &str = "10s";
/// No statement of a single command is allowed more; transactions set their own limit (PROTOCOL W7).
const SINGLE_STATEMENT: &str = "9500ms";
const BATCH_STATEMENT: &str = "19500ms";
/// A statement is ended this long before its command's deadline, so that the client still learns that nothing was done.
const MARGIN: Duration = Duration::from_millis(500);
/// Batches wait for each other rather than for single commands.
const BATCH_CONNECTIONS: u32 = 4;
/// Kept open, so that the first commands after a start or a quiet hour do not wait for them.
const KEPT_OPEN: u32 = 2;

/// A connection on which a command was given up, and which says nothing for this long, is not used again: by then Postgres has
/// ended the statement, if there still is one.
const RECOVERS_WITHIN: Duration = Duration::from_secs(2);

/// Unique constraints by what breaking them means.
const LOST_RACES: [&str; 3] = ["events_version_key", "listings_pkey", "stock_pkey"];
const EXTERNAL_ID: &str = "listings_external_id_key";

/// Sessions for single commands, and others for batches.
#[derive(Debug, Clone)]
pub struct Database {
    pub single: PgPool,
    pub batch: PgPool,
}

impl Database {
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

    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        Ok(self.single.acquire().await?)
    }

    pub async fn batch_connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        Ok(self.batch.acquire().await?)
    }

    /// Begins a transaction none of whose statements may take longer than the command has.
    pub async fn begin(&self, deadline: Duration) -> Result<Transaction<'static, Postgres>, Failure> {
        begin(&self.single, deadline).await
    }

    pub async fn begin_batch(&self, deadline: Duration) -> Result<Transaction<'static, Postgres>, Failure> {
        begin(&self.batch, deadline).await
    }

    /// Ends both pools; what is running is waited for.
    pub async fn close(&self) {
        tokio::join!(self.single.close(), self.batch.close());
    }
}

async fn begin(pool: &PgPool, deadline: Duration) -> Result<Transaction<'static, Postgres>, Failure> {
    // One round trip. The number is ours, no text of a caller's gets here.
    let statement =
        AssertSqlSafe(format!("begin; set local statement_timeout = {}", deadline.saturating_sub(MARGIN).as_millis()));
    let pool = pool.clone();
    // In a task of its own, which goes on when the command is given up. sqlx 0.9.0 counts a transaction only once BEGIN is answered:
    // a connection on which that was not waited for would go back to the pool in the middle of a transaction that nobody knows
    // of, and what others write on it, and tell their callers, would never be committed.
    let transaction = tokio::spawn(async move { pool.begin_with(statement).await });
    Ok(transaction.await.map_err(|_| sqlx::Error::WorkerCrashed)??)
}

/// From here on the outcome may be unknown: a connection that breaks while committing tells nothing.
pub async fn commit(transaction: Transaction<'static, Postgres>) -> Result<(), Failure> {
    transaction.commit().await.map_err(Failure::while_committing)
}

/// What a failure means for the command that met it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("Too many were changing this at the same time")]
    LostRace(#[source] sqlx::Error),
    #[error("Too many were changing this at the same time")]
    VariantsChanged,
    #[error("the seller has another listing with this external_id")]
    ExternalIdTaken,
    /// Nothing was done.
    #[error("The database does not answer at the moment; nothing was changed")]
    Away(#[source] sqlx::Error),
    #[error("The database did not say whether it was done")]
    Unknown(#[source] sqlx::Error),
    #[error("the database refused a statement")]
    Broken(#[source] sqlx::Error),
    #[error("a document cannot be written or read")]
    Document(#[source] anyhow::Error),
}

impl Failure {
    /// The journal holds what we wrote; if it cannot be read, that is our mistake.
    pub fn document(error: impl Into<anyhow::Error>) -> Self {
        Self::Document(error.into())
    }

    /// Of a statement that commits by itself, or of the commit.
    pub fn while_committing(error: sqlx::Error) -> Self {
        if was_taken_back(&error) {
            return Self::from(error);
        }
        let failure = Self::from(error);
        if let Self::Away(error) = failure { Self::Unknown(error) } else { failure }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::LostRace(_) | Self::VariantsChanged | Self::Away(_) => Kind::Unavailable,
            Self::ExternalIdTaken => Kind::Conflict,
            Self::Unknown(_) => Kind::Timeout,
            Self::Broken(_) | Self::Document(_) => Kind::Internal,
        }
    }
}

impl From<sqlx::Error> for Failure {
    /// Of a statement within a transaction, which is rolled back.
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            let is_away = matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
            );
            return if is_away { Self::Away(error) } else { Self::Broken(error) };
        };
        let code = database.code().unwrap_or_default();
        match (&*code, database.constraint()) {
            ("40001" | "40P01", _) => Self::LostRace(error),
            ("23505", Some(constraint)) if LOST_RACES.contains(&constraint) => Self::LostRace(error),
            ("23505", Some(EXTERNAL_ID)) => Self::ExternalIdTaken,
            // Connection, read-only, idle for too long, login, resources, shut-down, time-out and disk: about the server, not about
            // the statement.
            ("25006" | "25P03", _) => Self::Away(error),
            (code, _) if ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Self::Away(error),
            _ => Self::Broken(error),
        }
    }
}

/// A server that calls it an error has taken the statement back: it took too long, or there was no room for it. Not so if it ends the
/// session or goes down with it: what it held of a commit may count after the restart.
fn was_taken_back(error: &sqlx::Error) -> bool {
    let said = error.as_database_error().and_then(|said| said.try_downcast_ref::<PgDatabaseError>());
    said.is_some_and(|said| said.severity() == PgSeverity::Error)
}
