//! Publishes committed events from the outbox to JetStream.
//!
//! Guarantees: every committed event is published; the stream stores the versions of one aggregate as 1, 2, 3 … without a gap or a
//! second copy; an outbox row is deleted only after the broker has proven that it holds that very event.
//!
//! A process runs a few *lanes*. A lane is one session with Postgres, one connection to the broker, and the shards whose locks this
//! session holds. After any error the lane drops all three and reconnects: what it learned through a connection is not used after it.
//!
//! ```text
//!  take shards      advisory lock, then check the watermark ── lost? ──► repair: publish the journal again
//!       │
//!       ▼
//!     claim         oldest outbox rows with their events, and the last messages of their subjects
//!       ▼
//!     batch         events that follow the last message of their subject ──────┐ the others
//!       ▼                                                                      │
//!    publish        one atomic batch with expected sequences                   │
//!       │ ack          │ any other answer                                      │
//!       │              ▼                                                       ▼
//!       │           resolve    read the subject; publish, fill the gap from the journal, or defer the aggregate
//!       ▼              │ stored
//!     delete  ◄────────┘   check for a loss, delete the outbox rows, move the watermarks
//! ```
//!
//! While a batch is in flight the session deletes the rows before it and claims the next events.
//!
//! If the process dies
//! - before it publishes: the row is still in the outbox, the next owner claims it;
//! - half-way through a batch: the broker commits the batch as a whole or not at all;
//! - after the broker stored the event and before the delete: the next owner finds the event by its id and only deletes the row.
//!
//! If the process is stopped (SIGSTOP), Postgres ends its session and the locks pass to another process. Whatever it sends after it
//! wakes up is refused by the expected sequence.

// What a lane is, and what it is connected to.
mod broker;
mod lane;
mod session;
mod throttle;

// The steps of the picture, in order; all of them handle events of the journal.
mod event;
mod journal_reader;

mod ownership;

mod claim;

mod batch;

mod publisher;
mod send;

mod deferred;
mod resolve;

mod watermark;

// Whether broker and database still have what they acknowledged.
mod loss;
mod repair;
mod rewind;
mod stream_extent;

// How it is observed.
mod metrics;
mod status;

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use metrics::RelayMetrics;
pub use status::RelayStatus;

/// Number of shards of the outbox. An aggregate's shard is the last byte of its id modulo this number.
const SHARDS: i16 = 16;

/// Lanes per process. Each has at most one open batch; the server allows 50 per stream for all clients together (PROTOCOL R6).
const LANES: i16 = 2;

/// What the relay needs to run.
pub struct Relay {
    pub database: PgConnectOptions,
    pub nats_urls: Vec<String>,
    /// Changes when this process commits events.
    pub wake: watch::Receiver<()>,
    pub status: RelayStatus,
    pub metrics: RelayMetrics,
}

/// Runs the relay until `stop`, then publishes what is committed and releases the shards. While Postgres or the broker is
/// unavailable it retries.
///
/// # Errors
/// If the broker's `max_payload` is smaller than an event may be: commands would be accepted whose events it never takes
/// (PROTOCOL W5).
pub async fn run(relay: Relay, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..LANES {
        let shards = (0..SHARDS).filter(|shard| shard % LANES == number).collect();
        let lane = lane::LaneSettings {
            number,
            shards,
            database: relay.database.clone(),
            nats_urls: relay.nats_urls.clone(),
            wake: relay.wake.clone(),
            status: relay.status.clone(),
            metrics: relay.metrics.clone(),
        };
        tasks.spawn(lane::run(lane, stop.clone()));
    }
    let sampling = metrics::sample(relay.database, relay.metrics, relay.status, stop);
    tasks.spawn(async {
        sampling.await;
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the relay panicked")??;
    }
    Ok(())
}

/// Why an attempt of a lane ended.
#[derive(Debug, thiserror::Error)]
enum LaneError {
    #[error("the session with Postgres is lost: {0}")]
    Session(String),
    #[error("the broker does not answer: {0}")]
    Broker(String),
    /// A smaller batch may succeed.
    #[error("the broker does not answer in time: {0}")]
    Timeout(String),
    #[error("the broker lost what it had acknowledged: {0}")]
    Loss(String),
    /// The broker answers, but takes no events: the relay waits and resolves nothing.
    #[error("the broker takes no events: {0}")]
    Unavailable(String),
    /// Retrying does not help: the configuration must be changed.
    #[error("the broker cannot be used: {0}")]
    Misconfigured(String),
}

impl From<sqlx::Error> for LaneError {
    fn from(error: sqlx::Error) -> Self {
        Self::Session(error.to_string())
    }
}
