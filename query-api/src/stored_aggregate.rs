//! Reads one aggregate for queries by id: from Redis, or from Postgres, whose answer is then written to Redis.

use std::sync::Arc;

use bytes::Bytes;
use service::problem::{Kind, Refusal};
use views::listing_page::{PageContent, PageWrite, StoredPage};

use crate::app::App;
use crate::consistency::{AfterPause, Consistency, Freshness, NotVisibleYet};
use crate::database::POSTGRES;
use crate::store_guard::StoreError;
use crate::visibility::Audience;

/// A kind of aggregate with pages in Redis and rows in Postgres.
pub trait StoredAggregate: PageContent + Send {
    /// Reads the row in Postgres, as the write that creates its page in this `generation` of pages. `None` if there is no row.
    fn from_postgres(
        app: &App,
        generation: i32,
        id: Self::Id,
    ) -> impl Future<Output = Result<Option<PageWrite>, StoreError>> + Send;
}

/// One aggregate, as one viewer may see it.
#[derive(Debug)]
pub struct ShownAggregate {
    pub version: u64,
    /// The JSON that clients get, as the projector rendered it.
    pub body: Bytes,
    pub audience: Audience,
    pub freshness: Freshness,
}

/// Why no version of an aggregate could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    NotVisibleYet(#[from] NotVisibleYet),
    /// Shared, because one read may serve several queries.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Refusal for ReadError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotVisibleYet(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// Reads the aggregate until it has the `required` version, as long as the caller is willing to wait.
pub async fn read<C: StoredAggregate>(
    app: &App,
    id: C::Id,
    required: u64,
    consistency: &Consistency,
) -> Result<(StoredPage<C>, Freshness), ReadError> {
    let mut wait = consistency.wait();
    loop {
        let page = load(app, id, required).await?;
        if page.version >= required {
            return Ok((page, Freshness::Fresh));
        }
        if let AfterPause::Answer(freshness) = wait.pause().await? {
            return Ok((page, freshness));
        }
    }
}

/// Reads the aggregate once. The answer may be older than `required` if no store has that version.
pub async fn load<C: StoredAggregate>(app: &App, id: C::Id, required: u64) -> Result<StoredPage<C>, StoreError> {
    let generation = app.generations.listing_page();
    let cached = app.redis.page::<C>(generation, id).await.ok().flatten();
    let outdated = match cached {
        Some(page) if page.version >= required => {
            app.metrics.redis.hits.inc();
            return Ok(page);
        }
        outdated => outdated,
    };
    app.metrics.redis.misses.inc();

    // On the heap: this part is rare and large, and every layer above would move it.
    match (Box::pin(load_from_postgres(app, generation, id)).await, outdated) {
        (Ok(page), Some(outdated)) if page.version < outdated.version => Ok(outdated),
        (Ok(page), _) => Ok(page),
        // An outdated page is better than none: the caller may allow a stale answer.
        (Err(_), Some(outdated)) => Ok(outdated),
        (Err(error), None) => Err(error),
    }
}

async fn load_from_postgres<C: StoredAggregate>(app: &App, generation: i32, id: C::Id) -> Result<StoredPage<C>, StoreError> {
    let Some(write) = C::from_postgres(app, generation, id).await? else { return Ok(StoredPage::NEVER_EXISTED) };
    let page = write.stored_page().ok_or_else(|| unreadable(anyhow::anyhow!("a rendered page cannot be parsed")))?;
    app.redis.fill(write).await;
    Ok(page)
}

/// The error of a row in Postgres that cannot be rendered.
pub fn unreadable(error: impl Into<anyhow::Error>) -> StoreError {
    StoreError::Rejected { name: POSTGRES, source: error.into() }
}
