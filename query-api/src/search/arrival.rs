//! Waits until a search would find what a caller has seen (PROTOCOL Q1).
//!
//! A document can be read by its id at once, but is found only after a refresh that started after it was written. So: look
//! until every document is there, then have the index refreshed; one refresh serves all who wait for one.

use events::{Aggregate as _, Listing};
use opensearch::indices::IndicesRefreshParts;
use opensearch::{MgetParts, OpenSearch};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::SearchError;
use crate::app::App;
use crate::consistency::{Consistency, Freshness, Next};
use crate::dependency::Unanswered;
use crate::opensearch::OPENSEARCH;

/// Of what the caller has seen only the listings matter: the index takes nothing from other aggregates.
pub async fn wait_for(app: &App, consistency: &Consistency) -> Result<Freshness, SearchError> {
    let seen = consistency.entries().iter().filter(|(key, _)| key.kind == Listing::KIND);
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
