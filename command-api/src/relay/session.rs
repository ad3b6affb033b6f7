//! A lane's session with Postgres, through which it owns shards.
//!
//! The lock, the claim and the delete of a shard run on one session, so that losing the session is losing all three. Postgres
//! ends a session that was silent for a few seconds. That is how a stopped process loses its shards: its kernel keeps answering
//! TCP keepalives.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::{Instant, sleep_until, timeout};

use super::LaneError;
use super::broker::Broker;

/// First half of the advisory locks' key; the shard is the second half. Spells "LR".
pub const LOCK_CLASS: i32 = 0x4c52;

/// Longer than any pause of a healthy process, short enough for a takeover.
const IDLE_SESSION_TIMEOUT: &str = "5s";

/// Well within the idle timeout, so that one late ping does not cost the shards.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A statement of the relay takes milliseconds. One that takes this long means that the database is gone.
const STATEMENT_TIMEOUT: &str = "10s";
const ANSWER_WITHIN: Duration = Duration::from_secs(11);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// In milliseconds. A process that stops while Postgres sends to it is neither idle nor in a statement that can be cancelled, and
/// its kernel answers keepalives: only this timeout ends its session.
const TCP_USER_TIMEOUT: &str = "10000";

/// The relay's statements look up some hundred rows by key. The outbox grows from nothing to a backlog and back within seconds, so
/// the planner's statistics are always wrong: a plan made from them read the whole backlog for each batch (50 ms against 1 ms).
const PLANS: [(&str, &str); 5] = [
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    // Planning costs more than an empty poll.
    ("plan_cache_mode", "force_generic_plan"),
];

/// What a lane is connected to. Losing either connection ends the lane's attempt.
pub struct LaneConnections {
    pub session: RelaySession,
    pub broker: Arc<Broker>,
}

/// A session with Postgres that belongs to one lane, never to a pool.
pub struct RelaySession {
    connection: PgConnection,
    used: Instant,
}

impl RelaySession {
    pub async fn open(database: &PgConnectOptions) -> Result<Self, LaneError> {
        let options = database
            .clone()
            .application_name("listings-relay")
            .options([
                ("idle_session_timeout", IDLE_SESSION_TIMEOUT),
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("tcp_user_timeout", TCP_USER_TIMEOUT),
            ])
            .options(PLANS);
        let connection = timeout(CONNECT_WITHIN, options.connect())
            .await
            .map_err(|_| LaneError::Session(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))??;
        Ok(Self { connection, used: Instant::now() })
    }

    /// Runs statements. A statement that exceeds the timeout means that the session is lost.
    pub async fn run<T>(&mut self, work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> Result<T, LaneError> {
        let outcome = timeout(ANSWER_WITHIN, work(&mut self.connection))
            .await
            .map_err(|_| LaneError::Session(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))?;
        self.used = Instant::now();
        Ok(outcome?)
    }

    /// Pings Postgres if the session was idle for a second.
    pub async fn ping_if_due(&mut self) -> Result<(), LaneError> {
        if self.used.elapsed() >= PING_EVERY {
            self.run(async |connection| connection.ping().await).await?;
        }
        Ok(())
    }

    /// Waits for `other` while pinging Postgres. If the session is lost, `other` is dropped at once.
    pub async fn keep_alive_while<T>(&mut self, other: impl Future<Output = T>) -> Result<T, LaneError> {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                () = sleep_until(self.used + PING_EVERY) => self.ping_if_due().await?,
            }
        }
    }

    /// Tries to lock these shards without waiting for their owners; returns those that were free.
    ///
    /// A session blocked in `pg_advisory_lock` would hold back vacuum for as long as the owner lives.
    pub async fn try_lock(&mut self, shards: &[i16]) -> Result<Vec<i16>, LaneError> {
        self.run(async |connection| {
            sqlx::query_scalar!(
                r#"select shard as "shard!" from unnest($2::smallint[]) as shard where pg_try_advisory_lock($1, shard)"#,
                LOCK_CLASS,
                shards,
            )
            .fetch_all(connection)
            .await
        })
        .await
    }

    /// Closes the session, which releases the locks of its shards.
    pub async fn close(self) {
        if let Ok(Err(error)) = timeout(CONNECT_WITHIN, self.connection.close()).await {
            tracing::debug!(%error, "The relay's session was not closed in order");
        }
    }
}
