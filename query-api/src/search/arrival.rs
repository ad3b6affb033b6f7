//! Waits until a search would find what a caller has seen (PROTOCOL Q1).
//!
//! A document can be read by its id at once, but is found only after a refresh that started after it was written. So: look
//! until every document is there, then have the index refreshed; one refresh serves all who wait for one.

use std::sync::atomic::{AtomicU64, Ordering};

use events::Aggregate;
use opensearch::indices::IndicesRefreshParts;
use opensearch::{MgetParts, OpenSearch};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::SearchError;
use crate::app::App;
use crate::consistency::{Consistency, Freshness, Next};
use crate::dependency::Unanswered;
use crate::opensearch::OPENSEARCH;

/// Of what the caller has seen only the listings matter: the index takes nothing from other aggregates.
pub async fn wait_for(app: &App, consistency: &Consistency) -> Result<Freshness, SearchError> {
    let seen = consistency.entries().iter().filter(|(key, _)| key.aggregate == Aggregate::Listing);
    let seen: Vec<(Uuid, u64)> = seen.map(|(key, version)| (key.id, *version)).collect();
    if seen.is_empty() {
        return Ok(Freshness::Fresh);
    }
    let mut patience = consistency.patience();
    while !have_arrived(app, &seen).await? {
        if let Next::MakeDo(freshness) = patience.pause().await? {
            return Ok(freshness);
        }
    }
    app.refreshes.after_now(|| refresh(app)).await?;
    Ok(Freshness::Fresh)
}

#[derive(Deserialize)]
struct Documents {
    docs: Vec<Document>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    id: Uuid,
    /// That of the aggregate. A tombstone has one too; a document that never was has none.
    #[serde(rename = "_version", default)]
    version: u64,
    /// Its shard or the whole index is not to be had.
    error: Option<Box<RawValue>>,
}

/// Reads by id, which needs no refresh.
async fn have_arrived(app: &App, seen: &[(Uuid, u64)]) -> Result<bool, Unanswered> {
    let client: &OpenSearch = &app.search.client;
    let ids: Vec<Uuid> = seen.iter().map(|(id, _)| *id).collect();
    let question = async {
        let request = client.mget(MgetParts::Index(&app.search.alias)).realtime(true)._source(&["false"]);
        let response = request.body(json!({ "ids": ids })).send().await?.error_for_status_code()?;
        response.json::<Documents>().await
    };
    let documents = app.search.ask(question).await?.docs;
    if let Some(error) = documents.iter().find_map(|document| document.error.as_ref()) {
        return Err(Unanswered::Refused { name: OPENSEARCH, source: anyhow::anyhow!("{error}") });
    }
    let has = |(id, version): &(Uuid, u64)| documents.iter().any(|found| found.id == *id && found.version >= *version);
    Ok(seen.iter().all(has))
}

async fn refresh(app: &App) -> Result<(), Unanswered> {
    let index = [app.search.alias.as_str()];
    let question =
        async { app.search.client.indices().refresh(IndicesRefreshParts::Index(&index)).send().await?.error_for_status_code() };
    app.search.ask(question).await.map(drop)
}

/// Refreshes of the index: one runs, and all who came after it started share the next. What was written while one ran may be
/// missing in it (seen in 22 of 22 tries), so nobody joins a running one.
#[derive(Debug, Default)]
pub struct Refreshes {
    /// How many have asked for one.
    asked: AtomicU64,
    /// How many of these have been served. Held while a refresh runs.
    served: Mutex<u64>,
}

impl Refreshes {
    /// Returns when a refresh has ended that started after this was called.
    pub async fn after_now<E, R>(&self, refresh: impl FnOnce() -> R) -> Result<(), E>
    where
        R: Future<Output = Result<(), E>>,
    {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut served = self.served.lock().await;
        if *served < ticket {
            let serving = self.asked.load(Ordering::Acquire);
            refresh().await?;
            *served = serving;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_come_during_a_refresh_share_the_next() {
        let (refreshes, ran, ends) = (Arc::new(Refreshes::default()), Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (refreshes, ran, ends) = (Arc::clone(&refreshes), Arc::clone(&ran), Arc::clone(&ends));
            tokio::spawn(async move {
                let one = async || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    ends.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(())
                };
                refreshes.after_now(one).await
            })
        };
        let first = ask();
        while ran.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| ask()).collect();
        while refreshes.asked.load(Ordering::Relaxed) < 11 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ran.load(Ordering::Relaxed), 1, "the running one is joined by nobody, and no other runs beside it");
        ends.add_permits(1);
        first.await.unwrap().unwrap();
        ends.add_permits(1);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_failed_refresh_serves_nobody() {
        let refreshes = Refreshes::default();
        assert!(refreshes.after_now(|| async { Err("away") }).await.is_err());
        let mut ran = false;
        let again = refreshes.after_now(|| {
            ran = true;
            async { Ok::<_, Infallible>(()) }
        });
        again.await.unwrap();
        assert!(ran);
    }
}
