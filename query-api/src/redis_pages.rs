//! Redis: the pages that the projector writes, and the short-lived ones that query-api adds after a miss.

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, RedisResult, Script};
use service::metrics::Errors;
use service::redis::Redis;
use tracing::debug;
use views::generations::{SERVING_KEY, ServingGenerations};
use views::listing_page::{GATE, PageContent, PageWrite, StoredPage};

use crate::breaker::Breaker;
use crate::store_guard::{FailureClass, StoreError, StoreGuard};

/// A read takes well under a millisecond. After this time Postgres is the faster choice.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Time for a handshake within one data center.
const CONNECT_WITHIN: Duration = Duration::from_millis(250);

/// The name of Redis among the dependencies.
pub const REDIS: &str = "redis";

pub struct RedisPages {
    redis: Redis,
    gate: Script,
    guard: StoreGuard,
}

impl std::fmt::Debug for RedisPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisPages").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl RedisPages {
    /// Connects with the first call.
    pub fn new(url: &str, breaker: Breaker, errors: Errors) -> anyhow::Result<Self> {
        Ok(Self {
            redis: Redis::new(url, CONNECT_WITHIN, ANSWER_WITHIN)?,
            gate: Script::new(GATE),
            guard: StoreGuard::new(REDIS, breaker, None, errors),
        })
    }

    /// Reads a page; `None` is a miss.
    pub async fn page<C: PageContent>(&self, generation: i32, id: C::Id) -> Result<Option<StoredPage<C>>, StoreError> {
        Ok(self.get(&C::key(generation, id)).await?.and_then(|page| StoredPage::parse(&page)))
    }

    /// Reads the projector's copy of the serving generations; `None` if there is none.
    pub async fn serving_generations(&self) -> Result<Option<ServingGenerations>, StoreError> {
        Ok(self.get(SERVING_KEY).await?.and_then(|json| ServingGenerations::from_json(&json)))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let command = redis::Cmd::get(key);
        let reply = self.redis.ask(|mut connection| async move { command.query_async(&mut connection).await });
        self.guard.call(reply, classify_read).await
    }

    /// Writes a page that was read from Postgres. It uses the projector's version gate, so it never replaces a newer page, and a
    /// short time to live, because query-api does not update the page on the next event (PROTOCOL P9). A failure is ignored: the next
    /// reader reads Postgres again.
    pub async fn fill(&self, write: PageWrite) {
        let write = write.as_fill();
        let mut call = self.gate.key(&write.key);
        for argument in write.arguments() {
            call.arg(argument);
        }
        let reply = self.redis.ask(async |mut connection| call.invoke_async::<i64>(&mut connection).await);
        if let Err(error) = self.guard.call(reply, classify_write).await {
            debug!(error = %error, "Could not write a page to Redis: {error}");
        }
    }

    /// Whether Redis answers, regardless of the circuit breaker.
    pub async fn ping(&self) -> RedisResult<()> {
        self.redis.ask(async |mut connection| redis::cmd("PING").query_async(&mut connection).await).await
    }
}

/// A key of the wrong type says nothing about other keys.
fn classify_read(error: &RedisError) -> FailureClass {
    if error.code() == Some("WRONGTYPE") { FailureClass::Rejection } else { FailureClass::Outage }
}

/// A Redis that is full, or has become a replica, rejects writes and still serves reads.
fn classify_write(error: &RedisError) -> FailureClass {
    let lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_connection_refusal();
    if lost { FailureClass::Outage } else { FailureClass::Rejection }
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
        assert_eq!(classify_read(&wrong), FailureClass::Rejection);
        assert_eq!(classify_read(&said("LOADING Redis is loading the dataset in memory")), FailureClass::Outage);
        assert_eq!(classify_read(&std::io::Error::from(std::io::ErrorKind::TimedOut).into()), FailureClass::Outage);
    }
}
