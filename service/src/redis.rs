//! One shared connection to Redis: made with the first command, and made again after it was discarded.
//!
//! The client's `ConnectionManager` (redis 1.8) does not replace a connection after a response timeout, nor after `READONLY`: it keeps one
//! to a machine that has vanished until TCP gives up, and one to a server that became a replica for good. Here such an error discards
//! the connection, and the next command makes a new one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A client of Redis. Clones share the connection.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    connects_within: Duration,
    current: Arc<RwLock<Option<Numbered>>>,
    /// How many connections were made. Locked while one is being made, so that there is one at a time.
    made: Arc<Mutex<u64>>,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's URL contains the password.
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects with the first command.
    ///
    /// # Errors
    /// If the URL cannot be used.
    pub fn new(url: &str, connects_within: Duration, answers_within: Duration) -> RedisResult<Self> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connects_within)).set_response_timeout(Some(answers_within));
        Ok(Self { client: Client::open(url)?, config, connects_within, current: Arc::default(), made: Arc::default() })
    }

    /// Runs a command. If the error is about the connection, the connection is discarded. It takes at most the connection timeout and the
    /// response timeout together, also if it waits while another task connects.
    ///
    /// # Errors
    /// If there is no connection, or the command is not answered in time.
    pub async fn ask<T, Answer>(&self, command: impl FnOnce(MultiplexedConnection) -> Answer) -> RedisResult<T>
    where
        Answer: Future<Output = RedisResult<T>>,
    {
        let Numbered { number, connection } = match self.current() {
            Some(current) => current,
            // Boxed, because connecting is rare and its future is large.
            None => Box::pin(timeout(self.connects_within, self.connect())).await.map_err(std::io::Error::from)??,
        };
        let answer = command(connection).await;
        if answer.as_ref().is_err_and(is_about_the_connection) {
            // Many commands fail on one connection. The last of them must not discard the connection that was made after the first.
            self.replace(|current| current.filter(|current| current.number != number));
        }
        answer
    }

    /// Discards the connection. Commands that wait for an answer on it may still get it.
    pub fn give_up(&self) {
        self.replace(|_| None);
    }

    fn current(&self) -> Option<Numbered> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, next: impl FnOnce(Option<Numbered>) -> Option<Numbered>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = next(current.take());
    }

    async fn connect(&self) -> RedisResult<Numbered> {
        let mut made = self.made.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        *made += 1;
        let current = Numbered { number: *made, connection };
        self.replace(|_| Some(current.clone()));
        Ok(current)
    }
}

/// Whether an error is about the connection: no answer, half an answer, or a server that has become a replica.
fn is_about_the_connection(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse | ErrorKind::Server(ServerErrorKind::ReadOnly))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(redis::Value::extract_error).unwrap_err()
    }

    #[test]
    fn a_server_that_writes_nothing_any_more_is_left_and_one_that_refuses_is_not() {
        assert!(is_about_the_connection(&said("READONLY You can't write against a read only replica.")));
        assert!(is_about_the_connection(&std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        for refusal in ["OOM command not allowed", "NOSCRIPT No matching script.", "WRONGTYPE Operation against a key"] {
            assert!(!is_about_the_connection(&said(refusal)), "{refusal}");
        }
    }
}
