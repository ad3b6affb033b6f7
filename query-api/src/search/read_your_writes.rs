//! Waits until a search finds the writes that a caller requires (PROTOCOL Q1).
//!
//! A document can be read by its id at once, but a search finds it only after a refresh that started after the write. So this first
//! reads by id until every document has the required version, and then refreshes the index. Waiting queries share refreshes.

use events::{Aggregate as _, Listing};
use opensearch::indices::IndicesRefreshParts;
use opensearch::{MgetParts, OpenSearch};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::SearchError;
use crate::app::App;
use crate::consistency::{AfterPause, Consistency, Freshness};
use crate::opensearch::OPENSEARCH;
use crate::store_guard::StoreError;

/// Waits for the required writes of listings; no other aggregate changes the index.
pub async fn wait(app: &App, consistency: &Consistency) -> Result<Freshness, SearchError> {
    let required = consistency.entries().iter().filter(|(key, _)| key.kind == Listing::KIND);
    let required: Vec<(Uuid, u64)> = required.map(|(key, version)| (key.id, *version)).collect();
    if required.is_empty() {
        return Ok(Freshness::Fresh);
    }
    let mut wait = consistency.wait();
    while !are_indexed(app, &required).await? {
        if let AfterPause::Answer(freshness) = wait.pause().await? {
            return Ok(freshness);
        }
    }
    app.refreshes.after_now(|| refresh(app)).await?;
    Ok(Freshness::Fresh)
}

#[derive(Deserialize)]
struct IndexedDocuments {
    docs: Vec<IndexedDocument>,
}

#[derive(Deserialize)]
struct IndexedDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    /// The aggregate's version. A tombstone has one too; a document that never existed has none.
    #[serde(rename = "_version", default)]
    version: u64,
    /// Set if its shard or the whole index is unavailable.
    error: Option<Box<RawValue>>,
}

/// Reads the documents by id, which needs no refresh.
async fn are_indexed(app: &App, required: &[(Uuid, u64)]) -> Result<bool, StoreError> {
    let client: &OpenSearch = &app.search.client;
    let ids: Vec<Uuid> = required.iter().map(|(id, _)| *id).collect();
    let call = async {
        let request = client.mget(MgetParts::Index(&app.search.alias)).realtime(true)._source(&["false"]);
        let response = request.body(json!({ "ids": ids })).send().await?.error_for_status_code()?;
        response.json::<IndexedDocuments>().await
    };
    let documents = app.search.call(call).await?.docs;
    if let Some(error) = documents.iter().find_map(|document| document.error.as_ref()) {
        return Err(StoreError::Rejected { name: OPENSEARCH, source: anyhow::anyhow!("{error}") });
    }
    let is_indexed =
        |(id, version): &(Uuid, u64)| documents.iter().any(|document| document.id == *id && document.version >= *version);
    Ok(required.iter().all(is_indexed))
}

async fn refresh(app: &App) -> Result<(), StoreError> {
    let index = [app.search.alias.as_str()];
    let call =
        async { app.search.client.indices().refresh(IndicesRefreshParts::Index(&index)).send().await?.error_for_status_code() };
    app.search.call(call).await.map(drop)
}
