//! One connection to Redis for all who ask: made when it is first needed, and again after it was given up.
//!
//! The client's own manager keeps a connection for as long as TCP believes in it: for minutes after the server's machine has
//! vanished, and for good when its server has become a replica that writes nothing. Here whoever finds a connection useless
//! gives it up, and the next question gets a new one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Shared by its clones.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    connects_within: Duration,
    held: Arc<RwLock<Option<Held>>>,
    /// How many connections there have been. One is made at a time, for all who wait for it.
    made: Arc<Mutex<u64>>,
}

#[derive(Clone)]
struct Held {
    number: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's URL holds the password.
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// If the URL cannot be used.
    pub fn new(url: &str, connects_within: Duration, answers_within: Duration) -> RedisResult<Self> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connects_within)).set_response_timeout(Some(answers_within));
        Ok(Self { client: Client::open(url)?, config, connects_within, held: Arc::default(), made: Arc::default() })
    }

    /// Asks something, and gives the connection up if another may fare better. Ends within the two bounds together: whoever waits
    /// while another one connects waits no longer than if it did so itself.
    ///
    /// # Errors
    /// If there is no connection, or the question is not answered.
    pub async fn ask<T, Asked>(&self, question: impl FnOnce(MultiplexedConnection) -> Asked) -> RedisResult<T>
    where
        Asked: Future<Output = RedisResult<T>>,
    {
        let Held { number, connection } = match self.held() {
            Some(held) => held,
            // Rare, and large.
            None => Box::pin(timeout(self.connects_within, self.connect())).await.map_err(std::io::Error::from)??,
        };
        let answer = question(connection).await;
        if answer.as_ref().is_err_and(is_about_the_connection) {
            // Many wait in vain on one connection; the last of them must not give up the one that came after it.
            self.replace(|held| held.filter(|held| held.number != number));
        }
        answer
    }

    /// Others who still wait for an answer on it may get it.
    pub fn give_up(&self) {
        self.replace(|_| None);
    }

    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, next: impl FnOnce(Option<Held>) -> Option<Held>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = next(held.take());
    }

    async fn connect(&self) -> RedisResult<Held> {
        let mut made = self.made.lock().await;
        if let Some(held) = self.held() {
            return Ok(held);
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        *made += 1;
        let held = Held { number: *made, connection };
        self.replace(|_| Some(held.clone()));
        Ok(held)
    }
}

/// No answer, half an answer, or that of a server that takes no writes any more.
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
