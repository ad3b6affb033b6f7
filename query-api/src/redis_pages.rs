//! Redis: the pages and stock levels that the projector keeps there, and the fills that query-api adds for a while.

use std::time::Duration;

use bytes::Bytes;
use events::{ListingId, VariantId};
use redis::{RedisError, RedisResult, Script};
use service::metrics::Errors;
use service::redis::Redis;
use tracing::debug;
use views::listing_page::{GATE, HeldListing, HeldStock, Write, listing_key, stock_key};

use crate::breaker::Breaker;
use crate::dependency::{Dependency, Unanswered, Verdict};

/// A read takes well under a millisecond. What takes this long is sooner answered by Postgres.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// A handshake with a server nearby.
const CONNECT_WITHIN: Duration = Duration::from_millis(250);

/// The name of Redis among the dependencies.
pub const REDIS: &str = "redis";

pub struct RedisPages {
    redis: Redis,
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
        Ok(Self {
            redis: Redis::new(url, CONNECT_WITHIN, ANSWER_WITHIN)?,
            gate: Script::new(GATE),
            dependency: Dependency::new(REDIS, breaker, None, errors),
        })
    }

    /// A listing's page; `None` is a miss.
    pub async fn listing(&self, generation: i32, id: ListingId) -> Result<Option<HeldListing>, Unanswered> {
        let page = self.page(&listing_key(generation, id)).await?;
        Ok(page.and_then(|page| HeldListing::read(&page)))
    }

    /// A variant's stock; `None` is a miss.
    pub async fn stock(&self, generation: i32, id: VariantId) -> Result<Option<HeldStock>, Unanswered> {
        let page = self.page(&stock_key(generation, id)).await?;
        Ok(page.and_then(|page| HeldStock::read(&page)))
    }

    async fn page(&self, key: &str) -> Result<Option<Bytes>, Unanswered> {
        let command = redis::Cmd::get(key);
        let question = self.redis.ask(|mut connection| async move { command.query_async(&mut connection).await });
        self.dependency.ask(question, about_reading).await
    }

    /// Puts what Postgres had where the next reader finds it. Through the projector's gate, so that it never replaces
    /// anything newer; and for a short time, because only the projector hears of the next change (PROTOCOL P9).
    /// Failing costs the next reader a question to Postgres and nothing else.
    pub async fn fill(&self, write: Write) {
        let write = write.as_fill();
        let mut call = self.gate.key(&write.key);
        for argument in write.arguments() {
            call.arg(argument);
        }
        let question = self.redis.ask(async |mut connection| call.invoke_async::<i64>(&mut connection).await);
        let filled = self.dependency.ask(question, about_writing).await;
        if let Err(error) = filled {
            debug!(error = %error, "A page was not filled: {error}");
        }
    }

    /// Whether it answers at all, whatever the breaker thinks.
    pub async fn ping(&self) -> RedisResult<()> {
        self.redis.ask(async |mut connection| redis::cmd("PING").query_async(&mut connection).await).await
    }
}

/// One key of another kind is no reason not to ask for the others.
fn about_reading(error: &RedisError) -> Verdict {
    if error.code() == Some("WRONGTYPE") { Verdict::Refusal } else { Verdict::Outage }
}

/// A Redis that is full or a replica refuses to write, but may be read all the same.
fn about_writing(error: &RedisError) -> Verdict {
    let lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_connection_refusal();
    if lost { Verdict::Outage } else { Verdict::Refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(redis::Value::extract_error).unwrap_err()
    }

    #[test]
    fn one_key_of_another_kind_is_no_outage_and_a_server_that_cannot_answer_is() {
        let wrong = said("WRONGTYPE Operation against a key holding the wrong kind of value");
        assert_eq!(about_reading(&wrong), Verdict::Refusal);
        assert_eq!(about_reading(&said("LOADING Redis is loading the dataset in memory")), Verdict::Outage);
        assert_eq!(about_reading(&std::io::Error::from(std::io::ErrorKind::TimedOut).into()), Verdict::Outage);
    }
}
