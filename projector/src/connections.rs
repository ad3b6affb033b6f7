//! The servers that the program talks to. None has to be there when it starts.

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
    postgres,
    redis::Redis,
    settings::Secret,
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::settings::{DatabaseUrl, NatsUrl, OpenSearchUrl, RedisUrl};

/// How the servers know us.
const NAME: &str = "projector";
/// Atomic batches, which the relay publishes with, came with this version.
const OLDEST_BROKER: (u32, u32) = (2, 12);
/// A larger event would never have been accepted by a command; a broker that takes less stops a shard (PROTOCOL W5).
const LEAST_PAYLOAD: usize = 4 * 1024 * 1024;
/// An API request or a publish that is not answered within this did not happen.
const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// A broker that leaves two of these unanswered is gone, and looked for anew by the third. The client's own minute would be two
/// minutes in which nothing is fed and nobody says so.
const BROKER_PINGED_EVERY: Duration = Duration::from_secs(4);
/// One bulk of some megabytes on a busy single node; below `ack_wait`.
pub const SEARCH_ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// A pipeline of some hundred writes.
pub const REDIS_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const REDIS_CONNECTS_WITHIN: Duration = Duration::from_secs(1);
/// A statement of some hundred rows. A server that is gone cuts nothing short: see [`postgres::checked`], and the bounds of those
/// who ask.
pub const STATEMENT_WITHIN: Duration = Duration::from_secs(10);
/// No free connection, or no server, for this long: the store is away.
const DATABASE_CONNECTS_WITHIN: Duration = Duration::from_secs(3);
/// A connection on which a question was given up, and which says nothing for this long, is not used again.
const DATABASE_RECOVERS_WITHIN: Duration = Duration::from_secs(2);
/// Two projections with two statements in flight each, and the generations.
const DATABASE_CONNECTIONS: u32 = 6;
/// `volatile-*` evicts exactly the tombstones.
const BAD_EVICTION: &str = "volatile";

/// Connects in the background for as long as it takes, and again whenever the connection is lost.
pub async fn nats(url: &Secret<NatsUrl>) -> anyhow::Result<jetstream::Context> {
    let client = async_nats::ConnectOptions::new()
        .name(NAME)
        .retry_on_initial_connect()
        .ping_interval(BROKER_PINGED_EVERY)
        .request_timeout(Some(BROKER_ANSWERS_WITHIN))
        .connect(url.urls())
        .await
        .context("NATS_URL cannot be used")?;
    Ok(ContextBuilder::new().timeout(BROKER_ANSWERS_WITHIN).ack_timeout(BROKER_ANSWERS_WITHIN).build(client))
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

/// Connects when it is first used.
pub fn database(url: &Secret<DatabaseUrl>) -> anyhow::Result<PgPool> {
    let options = postgres::options("DATABASE_URL", url.expose())?;
    let milliseconds = STATEMENT_WITHIN.as_millis().to_string();
    let options = options.application_name(NAME).options([("statement_timeout", milliseconds)]);
    let pool = PgPoolOptions::new().max_connections(DATABASE_CONNECTIONS).acquire_timeout(DATABASE_CONNECTS_WITHIN);
    Ok(postgres::checked(pool, DATABASE_RECOVERS_WITHIN).connect_lazy_with(options))
}

/// Connects when it is first used, and again after each failure.
pub fn redis(url: &Secret<RedisUrl>) -> anyhow::Result<Redis> {
    // The error would show the URL.
    Redis::new(url.expose(), REDIS_CONNECTS_WITHIN, REDIS_ANSWERS_WITHIN).map_err(|_| anyhow::anyhow!("REDIS_URL cannot be used"))
}

/// Connects with each request.
pub fn opensearch(url: &Secret<OpenSearchUrl>) -> anyhow::Result<OpenSearch> {
    let Server { url, credentials } = Server::at(url.expose()).context("OPENSEARCH_URL cannot be used")?;
    let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(url)).disable_proxy().timeout(SEARCH_ANSWERS_WITHIN);
    if let Some(Credentials { user, password }) = credentials {
        transport = transport.auth(opensearch::auth::Credentials::Basic(user, password));
    }
    Ok(OpenSearch::new(transport.build().context("OPENSEARCH_URL cannot be used")?))
}

/// Redis' `maxmemory-policy`.
pub async fn eviction_policy(redis: &Redis) -> RedisResult<String> {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg("maxmemory-policy");
    let answer: HashMap<String, String> =
        redis.ask(|mut connection| async move { question.query_async(&mut connection).await }).await?;
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
