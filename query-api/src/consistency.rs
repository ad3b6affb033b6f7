//! Read your writes (PROTOCOL Q1): a query that carries a `Consistency-Token` is answered by a store that has those writes.
//!
//! The wait is bounded. What has not arrived by then is refused, or shown as stale to those who said that it will do.

use std::time::Duration;

use axum::extract::FromRequestParts;
use events::{AggregateKey, ConsistencyToken};
use http::HeaderName;
use http::request::Parts;
use service::http::{Deadline, Header, Prefer, RequestHeader};
use service::problem::{Kind, Problem, Refusal};
use tokio::time::Instant;

/// How long a query waits unless it asks for another time.
const WAIT: Duration = Duration::from_secs(2);
/// Of the route's deadline this much is left for the answer itself.
const KEPT_FOR_THE_ANSWER: Duration = Duration::from_secs(1);
/// Between two looks into a store, doubling: a projection is usually a few milliseconds behind.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a caller has seen, and how long it is ready to wait for a store that has it too.
#[derive(Debug, Clone, Default)]
pub struct Consistency {
    seen: Option<Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    token: ConsistencyToken,
    until: Instant,
    stale_ok: bool,
}

/// Whether an answer has everything that the caller has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// It has not, and the caller said that it will do.
    Stale,
}

/// The stores did not have in time what the caller has seen.
#[derive(Debug, thiserror::Error)]
#[error("What the Consistency-Token names has not arrived here yet")]
pub struct NotYet;

impl Refusal for NotYet {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

impl Consistency {
    /// What was seen, none if the caller sent no token.
    #[must_use]
    pub fn entries(&self) -> &[(AggregateKey, u64)] {
        self.seen.as_ref().map_or(&[], |seen| seen.token.entries())
    }

    /// The version of an aggregate that the answer must have; 0 is any.
    #[must_use]
    pub fn version_of(&self, key: AggregateKey) -> u64 {
        self.entries().iter().filter(|(seen, _)| *seen == key).map(|(_, version)| *version).max().unwrap_or(0)
    }

    /// For looking into a store again and again until it has what was seen.
    #[must_use]
    pub fn patience(&self) -> Patience<'_> {
        Patience { seen: self.seen.as_ref(), pause: FIRST_PAUSE }
    }
}

/// What is left of a caller's patience.
#[derive(Debug)]
pub struct Patience<'a> {
    seen: Option<&'a Seen>,
    pause: Duration,
}

/// After a look into a store that did not have enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    LookAgain,
    /// Answer with what there is.
    MakeDo(Freshness),
}

impl Patience<'_> {
    /// Waits a little before another look, or says that there is to be none.
    pub async fn pause(&mut self) -> Result<Next, NotYet> {
        let Some(seen) = self.seen else { return Ok(Next::MakeDo(Freshness::Fresh)) };
        if Instant::now() + self.pause > seen.until {
            return if seen.stale_ok { Ok(Next::MakeDo(Freshness::Stale)) } else { Err(NotYet) };
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(Next::LookAgain)
    }
}

struct TokenHeader(ConsistencyToken);

impl RequestHeader for TokenHeader {
    const NAME: HeaderName = HeaderName::from_static("consistency-token");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        let malformed = |what: &str| Problem::malformed(format!("The header Consistency-Token {what}"));
        let [token] = values else { return Err(malformed("must be sent once")) };
        ConsistencyToken::decode(token).map(Self).map_err(|error| malformed(&error.to_string()))
    }
}

impl<S: Sync> FromRequestParts<S> for Consistency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = Header::<TokenHeader>::of(&parts.headers).read()?;
        let prefer = Header::<Prefer>::of(&parts.headers).read()?.unwrap_or_default();
        let Some(TokenHeader(token)) = token else { return Ok(Self::default()) };
        let most = Deadline::from_request_parts(parts, state).await?.remaining().saturating_sub(KEPT_FOR_THE_ANSWER);
        let until = Instant::now() + prefer.wait.unwrap_or(WAIT).min(most);
        Ok(Self { seen: Some(Seen { token, until, stale_ok: prefer.stale_ok }) })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn having_seen(stale_ok: bool) -> Consistency {
        let token = ConsistencyToken::of(&[(AggregateKey::listing(Uuid::from_u128(1)), 3)]);
        Consistency { seen: Some(Seen { token, until: Instant::now() + WAIT, stale_ok }) }
    }

    async fn look_for(consistency: &Consistency, arrives_after: Duration) -> Result<Freshness, NotYet> {
        let arrives = Instant::now() + arrives_after;
        let mut patience = consistency.patience();
        while Instant::now() < arrives {
            if let Next::MakeDo(freshness) = patience.pause().await? {
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
    async fn patience_ends() {
        let began = Instant::now();
        assert!(look_for(&having_seen(false), Duration::from_mins(1)).await.is_err());
        assert!(began.elapsed() <= WAIT, "{:?}", began.elapsed());
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
