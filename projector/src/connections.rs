//! The connections to the servers. None of the servers has to be there when the program starts.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{self, context::ContextBuilder};
use opensearch::{
    OpenSearch,
    http::transport::{SingleNodeConnectionPool, TransportBuilder},
};
use redis::RedisResult;
use service::{
    basic_auth::{Credentials, Server},
    clock::Clock,
    postgres,
    redis::Redis,
    settings::Secret,
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    metrics::Metrics,
    settings::{Backoff, DatabaseUrl, NatsUrl, OpenSearchUrl, RedisUrl, Stores},
};

/// The name of this program in the servers' lists of connections.
const NAME: &str = "projector";
/// The first version with atomic batches, which the relay publishes with.
const OLDEST_BROKER: (u32, u32) = (2, 12);
/// The largest event that a command accepts fits; a broker that takes less would stop a shard of the relay (PROTOCOL W5).
const LEAST_PAYLOAD: usize = 4 * 1024 * 1024;
/// Timeout of an API request or a publish.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// After two pings without an answer the client reconnects. Its default of one minute would be two minutes in which nothing is applied
/// and nobody notices.
const BROKER_PING_INTERVAL: Duration = Duration::from_secs(4);
/// Timeout of one bulk of some megabytes on a busy single node; below `ack_wait`.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of a pipeline of some hundred writes.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of a statement of some hundred rows, which the server enforces. A server that is gone enforces nothing: see
/// [`postgres::checked`], and the timeouts of the callers.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of getting a connection, after which the store counts as unavailable.
const DATABASE_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection on which a statement was given up, and which does not answer within this time, is not used again.
const DATABASE_RECOVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Two projections of at most three generations with two statements in flight each, and the generations themselves. Idle ones are
/// never opened.
const DATABASE_CONNECTIONS: u32 = 14;
/// Policies that begin with this evict exactly the tombstones.
const BAD_EVICTION: &str = "volatile";

/// The stores that projections write to. None of them is connected to before it is first used.
#[derive(Debug, Clone)]
pub struct StoreClients {
    pub db: PgPool,
    pub redis: Redis,
    pub opensearch: OpenSearch,
    /// The alias that searches read.
    pub search_alias: String,
}

impl StoreClients {
    pub fn open(settings: &Stores, db: PgPool) -> anyhow::Result<Self> {
        Ok(Self {
            db,
            redis: redis(&settings.redis)?,
            opensearch: opensearch(&settings.opensearch)?,
            search_alias: settings.opensearch_index.clone(),
        })
    }
}

/// What the feeds of all generations share.
#[derive(Debug, Clone)]
pub struct Dependencies {
    pub jetstream: jetstream::Context,
    pub stores: StoreClients,
    pub metrics: Metrics,
    pub clock: Clock,
    pub backoff: Backoff,
}

/// Opens the client of the broker. It connects in the background for as long as it takes, and again whenever the connection is lost.
pub async fn nats(url: &Secret<NatsUrl>) -> anyhow::Result<jetstream::Context> {
    let client = async_nats::ConnectOptions::new()
        .name(NAME)
        .retry_on_initial_connect()
        .ping_interval(BROKER_PING_INTERVAL)
        .request_timeout(Some(BROKER_TIMEOUT))
        .connect(url.urls())
        .await
        .context("NATS_URL cannot be used")?;
    Ok(ContextBuilder::new().timeout(BROKER_TIMEOUT).ack_timeout(BROKER_TIMEOUT).build(client))
}

/// Refuses a broker on which events would get lost. Call it once there is a connection.
pub fn check_broker(jetstream: &jetstream::Context) -> anyhow::Result<()> {
    let server = jetstream.client().server_info();
    if version(&server.version).is_none_or(|version| version < OLDEST_BROKER) {
        let (major, minor) = OLDEST_BROKER;
        bail!("the NATS server is version {:?}; {major}.{minor} or newer is needed", server.version);
    }
    if !server.jetstream {
        bail!("the NATS server runs without JetStream");
    }
    if server.max_payload < LEAST_PAYLOAD {
        bail!(
            "the NATS server's max_payload is {} bytes; events need {LEAST_PAYLOAD} (see nats/server.conf)",
            server.max_payload
        );
    }
    Ok(())
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Opens the pool, which connects when it is first used.
pub fn database(url: &Secret<DatabaseUrl>) -> anyhow::Result<PgPool> {
    let options = postgres::options("DATABASE_URL", url.expose())?;
    let milliseconds = STATEMENT_TIMEOUT.as_millis().to_string();
    let options = options.application_name(NAME).options([("statement_timeout", milliseconds)]);
    let pool = PgPoolOptions::new().max_connections(DATABASE_CONNECTIONS).acquire_timeout(DATABASE_CONNECT_TIMEOUT);
    Ok(postgres::checked(pool, DATABASE_RECOVERY_TIMEOUT).connect_lazy_with(options))
}

/// Opens the client of Redis. It connects when it is first used, and again after each failure.
pub fn redis(url: &Secret<RedisUrl>) -> anyhow::Result<Redis> {
    // The error would show the URL.
    Redis::new(url.expose(), REDIS_CONNECT_TIMEOUT, REDIS_TIMEOUT).map_err(|_| anyhow::anyhow!("REDIS_URL cannot be used"))
}

/// Opens the client of OpenSearch, which connects with each request.
pub fn opensearch(url: &Secret<OpenSearchUrl>) -> anyhow::Result<OpenSearch> {
    let Server { url, credentials } = Server::at(url.expose()).context("OPENSEARCH_URL cannot be used")?;
    let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(url)).disable_proxy().timeout(SEARCH_TIMEOUT);
    if let Some(Credentials { user, password }) = credentials {
        transport = transport.auth(opensearch::auth::Credentials::Basic(user, password));
    }
    Ok(OpenSearch::new(transport.build().context("OPENSEARCH_URL cannot be used")?))
}

/// Reads Redis' `maxmemory-policy`.
pub async fn eviction_policy(redis: &Redis) -> RedisResult<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy");
    let answer: HashMap<String, String> =
        redis.ask(|mut connection| async move { command.query_async(&mut connection).await }).await?;
    Ok(answer.into_values().next().unwrap_or_default())
}

/// Whether a policy keeps tombstones as long as anything else.
pub fn evicts_tombstones_first(policy: &str) -> bool {
    policy.starts_with(BAD_EVICTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("2.15.1"), Some((2, 15)));
        assert_eq!(version("2.12.0-RC.1"), Some((2, 12)));
        assert!(version("2.9.10") < Some(OLDEST_BROKER));
        assert_eq!(version(""), None);
    }
}
