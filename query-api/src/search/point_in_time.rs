//! Points in time of the index: pages after the first come from one snapshot of it, regardless of later writes.
//!
//! A point in time costs OpenSearch memory, and a node allows 300, so it is opened for the second page and closed after the last.
//! When it was refused or has expired, pages continue by their sort values alone (PROTOCOL Q3).

use bytes::Bytes;
use opensearch::SearchParts;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use crate::app::App;
use crate::store_guard::StoreError;

/// How long a point in time lives without a request.
const KEEP_ALIVE: &str = "1m";

/// What to do with the point in time of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointInTimeUse {
    Keep,
    /// It may be older than the writes that the caller requires: open a new one.
    Replace,
}

#[derive(Deserialize)]
struct OpenedPointInTime {
    pit_id: String,
}

#[derive(Deserialize)]
struct AnsweringShards {
    #[serde(rename = "_shards")]
    shards: ShardCount,
}

#[derive(Deserialize)]
struct ShardCount {
    total: u32,
}

/// Opens a point in time; `None` when OpenSearch has too many, which is no failure.
pub async fn open(app: &App) -> Result<Option<String>, StoreError> {
    let path = format!("{}/_search/point_in_time?keep_alive={KEEP_ALIVE}&allow_partial_pit_creation=false", app.search.alias);
    let call = async {
        // The client's own method for this call does not accept these parameters.
        let client = &app.search.client;
        let response = client.send(Method::Post, &path, HeaderMap::new(), None::<&()>, None::<()>, None).await?;
        if response.status_code().is_success() { response.json::<OpenedPointInTime>().await.map(Some) } else { Ok(None) }
    };
    Ok(app.search.call(call).await?.map(|opened| opened.pit_id))
}

/// Searches within a point in time; `None` when it has expired or never existed.
pub async fn search(app: &App, id: &str, mut body: Value) -> Result<Option<Bytes>, StoreError> {
    body["pit"] = json!({"id": id, "keep_alive": KEEP_ALIVE});
    let call = async {
        let request = app.search.client.search(SearchParts::None).allow_partial_search_results(false).body(body);
        let response = request.send().await?;
        if response.status_code().is_success() { response.bytes().await.map(Some) } else { Ok(None) }
    };
    // For some invalid ids OpenSearch reports no error, but searches no shard and finds nothing.
    Ok(app
        .search
        .call(call)
        .await?
        .filter(|answer| serde_json::from_slice::<AnsweringShards>(answer).is_ok_and(|answer| answer.shards.total > 0)))
}

/// Closes a point in time after its last page, or when another one replaces it. A failure is ignored: it expires by itself.
pub async fn close(app: &App, id: &str) {
    let call = async { app.search.client.delete_pit().body(json!({"pit_id": [id]})).send().await };
    if let Err(error) = app.search.call(call).await {
        debug!(error = %error, "Could not close a point in time; it will expire: {error}");
    }
}
