//! Which generations of each projection exist (PROTOCOL G1). One is served; all that are not retired are fed.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::time::timeout;

/// Some rows; a database that says nothing for this long is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// What is said of one that says nothing.
const SILENT: &str = "Postgres does not answer";

/// A row of `projection.generations`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Generation {
    pub projection: String,
    pub number: i32,
    pub serving: bool,
    /// The durable consumer that feeds it.
    pub durable: String,
}

/// All generations that are fed.
pub async fn fed(db: &PgPool) -> anyhow::Result<Vec<Generation>> {
    let statement = sqlx::query_as!(
        Generation,
        r#"select projection, generation as number, state = 'serving' as "serving!", durable
             from projection.generations where state <> 'retired' order by projection, generation"#
    );
    Ok(timeout(ANSWERS_WITHIN, statement.fetch_all(db)).await.context(SILENT)??)
}

/// Notes that a generation lacks an event which it could not apply: it must not be switched to.
pub async fn mark_dirty(db: &PgPool, projection: &str, generation: i32) -> anyhow::Result<()> {
    let statement = sqlx::query!(
        "update projection.generations set dirty = true where projection = $1 and generation = $2",
        projection,
        generation
    );
    timeout(ANSWERS_WITHIN, statement.execute(db)).await.context(SILENT)??;
    Ok(())
}
