//! Carries committed events from the outbox to JetStream.
//!
//! Guarantees: every committed event is published; the versions of one aggregate are stored in the stream as 1, 2, 3 …
//! without a gap or a second copy; an outbox row is deleted only after the broker has proven that it holds that very event.
//!
//! A process runs a few *lanes*. A lane is one session with Postgres, one connection to the broker, and the shards that this
//! session holds the locks of. Whatever breaks, the lane drops all three and begins again: nothing it remembers outlives
//! what it was learned through.
//!
//! If we die
//! - before publishing: the row is still there, the next owner claims it;
//! - half-way through a batch: the broker commits it whole or not at all;
//! - after the broker stored it and before the delete: the next owner finds the event by its id and only deletes;
//! - stopped rather than dead: Postgres ends the session, the locks go to another, and whatever we send after waking up is
//!   refused by the expected sequence.

// What a lane holds.
mod broker;
mod lane;
mod ownership;

// What it does with the events of its shards.
mod batch;
mod claim;
mod pace;
mod publish;
mod resolve;
mod ship;
mod wire;

// Whether broker and database still have what they acknowledged.
mod extent;
mod mark;
mod repair;
mod rewind;

// How it is seen.
mod metrics;
mod status;

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
pub use status::Status;

/// Shards of the outbox: the last byte of an aggregate's id, modulo this.
const SHARDS: i16 = 16;

/// Each lane has at most one batch open. The server takes 50 per stream from everyone together (PROTOCOL R6).
const LANES: i16 = 2;

/// What the relay needs to run.
pub struct Relay {
    pub database: PgConnectOptions,
    pub nats_urls: Vec<String>,
    /// Changes when this process has committed events.
    pub wake: watch::Receiver<()>,
    pub status: Status,
    pub metrics: Metrics,
}

/// Runs until told to stop; then finishes what is in flight and releases the shards. An absent Postgres or broker is waited for.
///
/// # Errors
/// If the broker takes less than an event may be: commands would be accepted that it never gets to know (PROTOCOL W5).
pub async fn run(relay: Relay, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..LANES {
        let shards = (0..SHARDS).filter(|shard| shard % LANES == number).collect();
        let lane = lane::Plan {
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

/// Why a lane lets go of what it holds and begins again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the session with Postgres is lost: {0}")]
    Session(String),
    #[error("the broker does not answer: {0}")]
    Broker(String),
    /// A smaller batch may pass.
    #[error("the broker does not answer in time: {0}")]
    Slow(String),
    #[error("the broker lost what it had acknowledged: {0}")]
    Lost(String),
    /// The broker answers, and says no to everybody: wait, and resolve nothing.
    #[error("the broker takes nothing: {0}")]
    Waiting(String),
    /// Nothing is to be waited for: somebody has to change it.
    #[error("the broker cannot be used: {0}")]
    Unfit(String),
}

impl From<sqlx::Error> for Broken {
    fn from(error: sqlx::Error) -> Self {
        Self::Session(error.to_string())
    }
}
