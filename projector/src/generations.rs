//! Which generations of each projection exist (PROTOCOL G1). One is served; all that are not retired are fed.

use sqlx::PgPool;

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
pub async fn fed(db: &PgPool) -> sqlx::Result<Vec<Generation>> {
    sqlx::query_as!(
        Generation,
        r#"select projection, generation as number, state = 'serving' as "serving!", durable
             from projection.generations where state <> 'retired' order by projection, generation"#
    )
    .fetch_all(db)
    .await
}

/// Notes that a generation lacks an event which it could not apply: it must not be switched to.
pub async fn mark_dirty(db: &PgPool, projection: &str, generation: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "update projection.generations set dirty = true where projection = $1 and generation = $2",
        projection,
        generation
    )
    .execute(db)
    .await?;
    Ok(())
}
