//! Read your writes (PROTOCOL Q1): a query with a consistency token is answered from a store that has the writes it names.
//!
//! The wait is bounded. When it ends, the query is refused, or answered as stale if the caller allowed that.

use std::time::Duration;

use events::{AggregateKey, ConsistencyToken};
use service::problem::{Kind, Refusal};
use tokio::time::Instant;

/// How long a query waits unless the caller says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// Pauses between two attempts double from the first to the longest: a projection's lag is usually a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The writes that an answer must include. By default none.
#[derive(Debug, Clone, Default)]
pub struct Consistency {
    required: Option<RequiredWrites>,
}

#[derive(Debug, Clone)]
struct RequiredWrites {
    token: ConsistencyToken,
    until: Instant,
    stale_ok: bool,
}

/// Whether an answer includes the required writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// It does not, and the caller allowed that.
    Stale,
}

/// The stores did not have the required writes before the wait ended.
#[derive(Debug, thiserror::Error)]
#[error("The writes that the Consistency-Token names are not visible here yet")]
pub struct NotVisibleYet;

impl Refusal for NotVisibleYet {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

impl Consistency {
    /// Requires the writes that `token` names. After `wait` the answer may be stale if `stale_ok`, and is refused otherwise.
    pub fn with_writes_of(token: ConsistencyToken, wait: Duration, stale_ok: bool) -> Self {
        Self { required: Some(RequiredWrites { token, until: Instant::now() + wait, stale_ok }) }
    }

    /// The required writes; none without a token.
    pub fn entries(&self) -> &[(AggregateKey, u64)] {
        self.required.as_ref().map_or(&[], |required| required.token.entries())
    }

    /// The lowest version of an aggregate that the answer may have; 0 is any.
    pub fn version_of(&self, key: AggregateKey) -> u64 {
        self.entries().iter().filter(|(required, _)| *required == key).map(|(_, version)| *version).max().unwrap_or(0)
    }

    /// Starts waiting for a store to receive the required writes.
    pub fn wait(&self) -> WriteWait<'_> {
        WriteWait { required: self.required.as_ref(), pause: FIRST_PAUSE }
    }
}

/// Paces repeated reads of a store that does not have the required writes yet.
#[derive(Debug)]
pub struct WriteWait<'a> {
    required: Option<&'a RequiredWrites>,
    pause: Duration,
}

/// What to do after a read that lacked required writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPause {
    ReadAgain,
    /// Answer with what was read.
    Answer(Freshness),
}

impl WriteWait<'_> {
    /// Pauses before another read. Once the wait is over, allows a stale answer or fails.
    pub async fn pause(&mut self) -> Result<AfterPause, NotVisibleYet> {
        let Some(required) = self.required else { return Ok(AfterPause::Answer(Freshness::Fresh)) };
        if Instant::now() + self.pause > required.until {
            return if required.stale_ok { Ok(AfterPause::Answer(Freshness::Stale)) } else { Err(NotVisibleYet) };
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(AfterPause::ReadAgain)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn having_seen(stale_ok: bool) -> Consistency {
        let token = ConsistencyToken::of(&[(AggregateKey::listing(Uuid::from_u128(1)), 3)]);
        Consistency::with_writes_of(token, DEFAULT_WAIT, stale_ok)
    }

    async fn look_for(consistency: &Consistency, arrives_after: Duration) -> Result<Freshness, NotVisibleYet> {
        let arrives = Instant::now() + arrives_after;
        let mut wait = consistency.wait();
        while Instant::now() < arrives {
            if let AfterPause::Answer(freshness) = wait.pause().await? {
                return Ok(freshness);
            }
        }
        Ok(Freshness::Fresh)
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_what_is_on_its_way() {
        assert_eq!(look_for(&having_seen(false), Duration::from_millis(1_500)).await.unwrap(), Freshness::Fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends() {
        let began = Instant::now();
        assert!(look_for(&having_seen(false), Duration::from_mins(1)).await.is_err());
        assert!(began.elapsed() <= DEFAULT_WAIT, "{:?}", began.elapsed());
        assert_eq!(look_for(&having_seen(true), Duration::from_mins(1)).await.unwrap(), Freshness::Stale);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_token_nothing_is_waited_for() {
        let began = Instant::now();
        assert_eq!(look_for(&Consistency::default(), Duration::from_mins(1)).await.unwrap(), Freshness::Fresh);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn only_the_aggregate_itself_is_asked_for() {
        let seen = having_seen(false);
        assert_eq!(seen.version_of(AggregateKey::listing(Uuid::from_u128(1))), 3);
        assert_eq!(seen.version_of(AggregateKey::stock(Uuid::from_u128(1))), 0);
    }
}
