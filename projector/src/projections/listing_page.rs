//! `listing_page` shows one listing, and its stock, fast: Redis.

use anyhow::anyhow;
use events::{Aggregate as _, AggregateKind, Event, Listing, ListingId, Stock, VariantId};
use redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind};
use service::redis::Redis;
use views::listing_page::{self, GATE, PageWrite};

use crate::connections::{REDIS_TIMEOUT, StoreClients};
use crate::generations::Generation;
use crate::projection::{EventFailure, EventResult, Projection, SystemicFailure, WriteEffect, WriteLimits};

/// Writes the pages of one generation.
pub struct ListingPages {
    redis: Redis,
    gate: Script,
    generation: i32,
}

impl ListingPages {
    /// Sends all writes in one round trip. If Redis does not know the script, it is loaded and the writes are sent again.
    async fn pipeline(&self, writes: &[PageWrite]) -> Result<Vec<RedisResult<bool>>, RedisError> {
        let mut pipeline = redis::pipe();
        for write in writes {
            pipeline.cmd("EVALSHA").arg(self.gate.get_hash()).arg(1).arg(&write.key);
            for argument in write.arguments() {
                pipeline.arg(argument);
            }
        }
        pipeline.ignore_errors();
        let unknown = |result: &RedisResult<bool>| matches!(result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript));
        let question = async |mut connection| {
            let results: Vec<RedisResult<bool>> = pipeline.query_async(&mut connection).await?;
            if !results.iter().any(unknown) {
                return Ok(results);
            }
            self.gate.load_async(&mut connection).await?;
            // A write of the first round that was done finds itself superseded.
            pipeline.query_async(&mut connection).await
        };
        self.redis.ask(question).await
    }
}

impl Projection for ListingPages {
    const NAME: &'static str = listing_page::NAME;
    const AGGREGATES: &'static [AggregateKind] = &[Listing::KIND, Stock::KIND];
    const LIMITS: WriteLimits = WriteLimits { events: 500, bytes: 4 * 1024 * 1024, in_flight: 2, timeout: REDIS_TIMEOUT };

    type Write = PageWrite;

    fn open(stores: &StoreClients, generation: &Generation) -> Self {
        Self { redis: stores.redis.clone(), gate: Script::new(GATE), generation: generation.number }
    }

    fn render(&self, event: &Event) -> anyhow::Result<PageWrite> {
        let (id, version) = (event.meta.key.id, event.meta.version);
        if event.is_of::<Stock>() {
            return Ok(match event.state::<Stock>()? {
                Some(stock) => PageWrite::stock(self.generation, &stock)?,
                None => PageWrite::stock_gone(self.generation, VariantId(id), version),
            });
        }
        Ok(match event.state::<Listing>()? {
            Some(listing) => PageWrite::listing(self.generation, &listing)?,
            None => PageWrite::listing_gone(self.generation, ListingId(id), version),
        })
    }

    async fn store(&self, writes: Vec<PageWrite>) -> Result<Vec<EventResult>, SystemicFailure> {
        let results = self
            .pipeline(&writes)
            .await
            .map_err(|error| SystemicFailure(anyhow::Error::new(error).context("Redis does not answer")))?;
        let results = classify_results(results);
        if results.is_err() {
            // After a failover the name may point to another server: reconnect.
            self.redis.give_up();
        }
        results
    }
}

/// Classifies the answer to each write. An error that all of several writes share is about Redis, unless it is known to be about a key.
fn classify_results(results: Vec<RedisResult<bool>>) -> Result<Vec<EventResult>, SystemicFailure> {
    let is_unclear = |result: &RedisResult<bool>| result.as_ref().is_err_and(|error| error.code() != Some("WRONGTYPE"));
    let all_failed = results.len() > 1 && results.iter().all(is_unclear);
    results
        .into_iter()
        .map(|result| match result {
            Ok(true) => Ok(Ok(WriteEffect::Applied)),
            Ok(false) => Ok(Ok(WriteEffect::Superseded)),
            Err(error) if all_failed || is_about_redis(&error) => Err(SystemicFailure(anyhow!("Redis refuses: {error}"))),
            Err(error) => Ok(Err(EventFailure::Transient(anyhow!("Redis: {error}")))),
        })
        .collect()
}

/// Whether any other write would fail in the same way: no memory, no right, not the master, still loading.
fn is_about_redis(error: &RedisError) -> bool {
    const CODES: [&str; 5] = ["OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOREPLICAS"];
    if let ErrorKind::Server(kind) = error.kind() {
        return !matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot);
    }
    error.kind() != ErrorKind::Extension || error.code().is_some_and(|code| CODES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(redis::Value::extract_error).unwrap_err()
    }

    #[test]
    fn one_write_that_fails_among_others_may_work_later() {
        let wrong_type = server_error("WRONGTYPE Operation against a key holding the wrong kind of value");
        let outcomes = classify_results(vec![Ok(true), Err(wrong_type), Ok(false)]).unwrap();
        assert!(matches!(outcomes[..], [Ok(WriteEffect::Applied), Err(EventFailure::Transient(_)), Ok(WriteEffect::Superseded)]));
    }

    #[test]
    fn what_all_writes_meet_is_about_redis() {
        let error = || server_error("ERR something new");
        assert!(classify_results(vec![Err(error()), Err(error())]).is_err());
        let wrong_type = || server_error("WRONGTYPE Operation against a key holding the wrong kind of value");
        assert!(classify_results(vec![Err(wrong_type()), Err(wrong_type())]).is_ok(), "each is about its key");
        // Alone nobody can tell.
        assert!(classify_results(vec![Err(error())]).is_ok());
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'",
            "LOADING Redis is loading",
            "READONLY You can't write",
            "NOPERM no",
        ] {
            assert!(classify_results(vec![Ok(true), Err(server_error(line))]).is_err(), "{line}");
        }
    }
}
