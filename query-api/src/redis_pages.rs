//! Redis: the pages and stock levels that the projector keeps there, and the fills that query-api adds for a while.

use std::time::Duration;

use events::{ListingId, VariantId};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult, Script};
use service::metrics::Errors;
use tracing::debug;
use views::listing_page::{GATE, HeldListing, HeldStock, LISTING_FIELDS, Mode, STOCK_FIELDS, Write, listing_key, stock_key};

use crate::breaker::Breaker;
use crate::dependency::{Dependency, Unanswered, Verdict};

/// A read takes well under a millisecond. What takes this long is sooner answered by Postgres.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The name of Redis among the dependencies.
pub const REDIS: &str = "redis";

pub struct RedisPages {
    connection: ConnectionManager,
    gate: Script,
    dependency: Dependency,
}

impl std::fmt::Debug for RedisPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisPages").field("dependency", &self.dependency).finish_non_exhaustive()
    }
}

impl RedisPages {
    /// Connects when it is first asked.
    pub fn new(url: &str, breaker: Breaker, errors: Errors) -> anyhow::Result<Self> {
        // One try per question: the breaker decides how often an absent Redis is asked.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(None)
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)?;
        Ok(Self { connection, gate: Script::new(GATE), dependency: Dependency::new(REDIS, breaker, ANSWER_WITHIN, errors) })
    }

    /// A listing's page; `None` is a miss.
    pub async fn listing(&self, generation: i32, id: ListingId) -> Result<Option<HeldListing>, Unanswered> {
        let fields = self.fields(&listing_key(generation, id), LISTING_FIELDS).await?;
        Ok(HeldListing::read(fields))
    }

    /// A variant's stock; `None` is a miss.
    pub async fn stock(&self, generation: i32, id: VariantId) -> Result<Option<HeldStock>, Unanswered> {
        let fields = self.fields(&stock_key(generation, id), STOCK_FIELDS).await?;
        Ok(HeldStock::read(fields))
    }

    async fn fields<const N: usize>(&self, key: &str, names: [&str; N]) -> Result<[Option<Vec<u8>>; N], Unanswered> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg(&names);
        self.dependency.ask(command.query_async(&mut connection), |_| Verdict::Outage).await
    }

    /// Puts what Postgres had where the next reader finds it. Through the projector's gate, so that it never replaces
    /// anything newer; and for a short time, because only the projector hears of the next change (PROTOCOL P9).
    /// Failing costs the next reader a question to Postgres and nothing else.
    pub async fn fill(&self, write: Write) {
        let write = write.as_fill();
        let mut connection = self.connection.clone();
        let mut call = self.gate.key(&write.key);
        for argument in write.arguments(Mode::Newer) {
            call.arg(argument);
        }
        let filled = self.dependency.ask(async { call.invoke_async::<i64>(&mut connection).await }, about_writing).await;
        if let Err(error) = filled {
            debug!(error = %error, "A page was not filled: {error}");
        }
    }

    /// Whether it answers at all, whatever the breaker thinks.
    pub async fn ping(&self) -> RedisResult<()> {
        let mut connection = self.connection.clone();
        redis::cmd("PING").query_async(&mut connection).await
    }
}

/// A Redis that is full or a replica refuses to write, but may be read all the same.
fn about_writing(error: &RedisError) -> Verdict {
    let lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_connection_refusal();
    if lost { Verdict::Outage } else { Verdict::Refusal }
}
