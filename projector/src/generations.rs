//! The generations of each projection, as the table `projection.generations` says (PROTOCOL G1).
//!
//! A projection has one generation that serves readers, and others while it is rebuilt or may be rolled back. A [`Generation`] is a
//! value from which everything that the projection owns is derived, here and nowhere else: names, index, partition, dead letters,
//! metric labels. Generation 1 keeps the projection's own name; from 2 on names end with `-<number>`.

use std::time::Duration;

use anyhow::Context as _;
use service::redis::Redis;
use sqlx::PgPool;
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use views::{
    generations::{REWRITE_AFTER, SERVING_KEY, SERVING_TTL, ServingGenerations},
    listing_search,
};

/// Bound of one statement on this small table. It also ends a statement on a connection whose server has vanished.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
const NO_ANSWER: &str = "Postgres does not answer";
/// How soon a write of the serving generations to Redis that failed is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// One generation of one projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub projection: String,
    pub number: i32,
    pub state: GenerationState,
    name: String,
}

/// What a generation that is fed is for. A retired one is fed no more and is not read from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationState {
    /// It is being filled and has never served.
    Building,
    /// Readers use it. At most one generation of a projection serves.
    Serving,
    /// It served before, and is kept up to date for a rollback.
    Fed,
}

impl GenerationState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Serving => "serving",
            Self::Fed => "fed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Building, Self::Serving, Self::Fed].into_iter().find(|state| state.as_str() == name)
    }
}

impl Generation {
    pub fn new(projection: impl Into<String>, number: i32, state: GenerationState) -> Self {
        let projection = projection.into();
        let name = if number == 1 { projection.clone() } else { format!("{projection}-{number}") };
        Self { projection, number, state, name }
    }

    /// The name of its durable consumer, of its readiness check, and of itself in log lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_serving(&self) -> bool {
        self.state == GenerationState::Serving
    }

    /// The search index that holds its documents, behind the alias that readers use.
    pub fn search_index(&self, alias: &str) -> String {
        listing_search::index(alias, self.number.cast_unsigned())
    }

    /// The message id of the dead letter of an event (PROTOCOL P6).
    pub fn dead_letter_id(&self, event_id: &str) -> String {
        format!("{}/{}/{event_id}", self.projection, self.number)
    }

    /// The subject of the dead letter of an event, whose own subject ends with `.<aggregate>.<id>`.
    pub fn dead_letter_subject(&self, class: &str, aggregate: &str) -> String {
        format!("{}.{}.{}{aggregate}", events::subject::DLQ_PREFIX, self.projection, class)
    }
}

/// Reads all generations that are fed: those that are not retired.
pub async fn not_retired(db: &PgPool) -> anyhow::Result<Vec<Generation>> {
    let statement = sqlx::query!(
        "select projection, generation, state from projection.generations where state <> 'retired' order by projection, generation"
    );
    let rows = timeout(STATEMENT_TIMEOUT, statement.fetch_all(db)).await.context(NO_ANSWER)??;
    let read = |row: &str, number, state: &str| {
        let state =
            GenerationState::from_name(state).with_context(|| format!("generation {number} of {row} has state {state}"))?;
        Ok(Generation::new(row, number, state))
    };
    rows.iter().map(|row| read(&row.projection, row.generation, &row.state)).collect()
}

/// Records that a generation lacks an event which it could not apply: it must not become the serving one.
pub async fn mark_dirty(db: &PgPool, generation: &Generation) -> anyhow::Result<()> {
    let statement = sqlx::query!(
        "update projection.generations set dirty = true where projection = $1 and generation = $2",
        generation.projection,
        generation.number
    );
    timeout(STATEMENT_TIMEOUT, statement.execute(db)).await.context(NO_ANSWER)??;
    Ok(())
}

/// Makes the partition of a projection's table that holds a generation, and returns whether it did; one that exists stays as it is.
pub async fn create_partition(db: &PgPool, generation: &Generation) -> anyhow::Result<bool> {
    let statement = sqlx::query_scalar!(
        r#"select projection.create_generation_partition($1, $2) as "created!""#,
        generation.projection,
        generation.number
    );
    let created = timeout(STATEMENT_TIMEOUT, statement.fetch_one(db)).await.context(NO_ANSWER)?;
    created.with_context(|| format!("the partition of {} cannot be made (`command-api migrate` first)", generation.name()))
}

/// The serving generations, for [`publish_serving`].
pub fn serving(generations: &[Generation]) -> ServingGenerations {
    let serving = generations.iter().filter(|generation| generation.is_serving());
    serving.map(|generation| (generation.projection.as_str(), generation.number)).collect()
}

/// Writes the serving generations to Redis whenever they change, and again before the key could be missed for long, until stopped.
/// query-api reads them there while Postgres is unavailable; an unavailable Redis changes nothing for the projections.
pub async fn publish_serving(
    redis: Redis,
    mut serving: watch::Receiver<ServingGenerations>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let current = serving.borrow_and_update().clone();
        let mut rewrite_after = REWRITE_AFTER;
        if current != ServingGenerations::default() {
            let mut set = redis::cmd("SET");
            set.arg(SERVING_KEY).arg(current.to_json()).arg("PX").arg(SERVING_TTL.as_millis().to_string());
            let written = redis.ask(|mut connection| async move { set.exec_async(&mut connection).await });
            match stop.run_until_cancelled(written).await {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    debug!(error = %error, "The serving generations could not be written to Redis: {error}");
                    rewrite_after = WRITE_AGAIN;
                }
            }
        }
        let rewrite_at = tokio::time::Instant::now() + rewrite_after;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // The sender is dropped when the program stops.
            changed = timeout_at(rewrite_at, serving.changed()) => if let Ok(Err(_)) = changed { return Ok(()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_generation_keeps_the_projections_name() {
        let [first, second] = [1, 2].map(|number| Generation::new("listing_search", number, GenerationState::Serving));
        assert_eq!((first.name(), second.name()), ("listing_search", "listing_search-2"));
        assert_eq!((first.search_index("listings"), second.search_index("listings")), ("listings-1".into(), "listings-2".into()));
        assert_eq!(second.dead_letter_id("x"), "listing_search/2/x");
        let subject = second.dead_letter_subject("poison", ".listing.7");
        assert_eq!(subject, "listings.dlq.listing_search.poison.listing.7");
    }

    #[test]
    fn only_serving_generations_are_published() {
        let of = |projection: &str, number, state| Generation::new(projection, number, state);
        let all = [of("a", 1, GenerationState::Fed), of("a", 2, GenerationState::Serving), of("b", 1, GenerationState::Building)];
        assert_eq!(serving(&all), [("a", 2)].into_iter().collect());
    }
}
