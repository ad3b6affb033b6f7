//! A point in time of the index: pages after the first come from one state of it, whatever is written meanwhile.
//!
//! It costs OpenSearch memory, and there may be only so many (300 on a node), so it is opened when somebody asks for a
//! second page and closed behind the last one. Without it, when it is refused or has expired, pages go on by their sort
//! values alone (PROTOCOL Q3).

use bytes::Bytes;
use opensearch::SearchParts;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use crate::app::App;
use crate::dependency::Unanswered;

/// How long it waits for the next page.
const KEEP_ALIVE: &str = "1m";

/// Whether a cursor's own is good enough for its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Kept,
    LetGo,
}

#[derive(Deserialize)]
struct Opened {
    pit_id: String,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "_shards")]
    shards: Shards,
}

#[derive(Deserialize)]
struct Shards {
    total: u32,
}

/// Opens one; `None` when OpenSearch has too many, which is no failure.
pub async fn open(app: &App) -> Result<Option<String>, Unanswered> {
    let path = format!("{}/_search/point_in_time?keep_alive={KEEP_ALIVE}&allow_partial_pit_creation=false", app.search.alias);
    let question = async {
        // The client has the call, but not the type of its argument.
        let client = &app.search.client;
        let response = client.send(Method::Post, &path, HeaderMap::new(), None::<&()>, None::<()>, None).await?;
        if response.status_code().is_success() { response.json::<Opened>().await.map(Some) } else { Ok(None) }
    };
    Ok(app.search.ask(question).await?.map(|opened| opened.pit_id))
}

/// Asks within one; `None` when it is no longer there, or never was.
pub async fn ask(app: &App, id: &str, mut body: Value) -> Result<Option<Bytes>, Unanswered> {
    body["pit"] = json!({"id": id, "keep_alive": KEEP_ALIVE});
    let question = async {
        let request = app.search.client.search(SearchParts::None).allow_partial_search_results(false).body(body);
        let response = request.send().await?;
        if response.status_code().is_success() { response.bytes().await.map(Some) } else { Ok(None) }
    };
    // Some invented ids are no error, but one of no shards, in which nothing is found.
    Ok(app
        .search
        .ask(question)
        .await?
        .filter(|answer| serde_json::from_slice::<Asked>(answer).is_ok_and(|asked| asked.shards.total > 0)))
}

/// Closes one behind its last page, or when another takes its place. It would close by itself; not closing it only takes room
/// from others for a while.
pub async fn close(app: &App, id: &str) {
    let question = async { app.search.client.delete_pit().body(json!({"pit_id": [id]})).send().await };
    if let Err(error) = app.search.ask(question).await {
        debug!(error = %error, "A point in time was left to expire: {error}");
    }
}
