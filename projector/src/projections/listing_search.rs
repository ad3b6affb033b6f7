//! `listing_search` finds listings: OpenSearch, one document per listing, written in bulks.

mod index;

use anyhow::anyhow;
use bytes::Bytes;
use events::{Aggregate as _, AggregateKind, Event, Listing, ListingId};
use opensearch::{
    OpenSearch,
    http::{
        Method, StatusCode,
        headers::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
    },
};
use serde::Deserialize;
use views::listing_search;

use crate::connections::{SEARCH_TIMEOUT, StoreClients};
use crate::generations::Generation;
use crate::projection::{EventFailure, EventResult, Projection, SystemicFailure, WriteEffect, WriteLimits};

/// The fields of an answer that are classified. Without the others the answer to a thousand documents is small.
const ANSWER_FIELDS: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason";
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Writes the documents of one generation.
pub struct ListingSearch {
    opensearch: OpenSearch,
    /// The index by its own name: the alias is for readers, and moves.
    index: String,
}

impl ListingSearch {
    /// Sends one `_bulk`; one that is too large is sent again in halves.
    async fn bulk(&self, items: &[Vec<u8>]) -> Result<Vec<EventResult>, SystemicFailure> {
        let mut results = Vec::with_capacity(items.len());
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            let body = Bytes::from(part.concat());
            let (status, answer) = self
                .send(body)
                .await
                .map_err(|error| SystemicFailure(anyhow::Error::new(error).context("OpenSearch does not answer")))?;
            match classify_request(status, part.len(), &answer) {
                BulkOutcome::Answered => results.extend(classify_items(&answer, part.len())?),
                BulkOutcome::TooLarge => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                BulkOutcome::Poison(error) => results.push(Err(EventFailure::Poison(error))),
                BulkOutcome::Refused(error) => return Err(SystemicFailure(error)),
            }
        }
        Ok(results)
    }

    async fn send(&self, body: Bytes) -> Result<(StatusCode, Bytes), opensearch::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, NDJSON);
        // Compressing a small answer costs the node more than it saves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let query = [("filter_path", ANSWER_FIELDS)];
        let response = self.opensearch.transport().send(Method::Post, "/_bulk", headers, Some(&query), Some(body), None).await?;
        Ok((response.status_code(), response.bytes().await?))
    }
}

impl Projection for ListingSearch {
    const NAME: &'static str = listing_search::NAME;
    const AGGREGATES: &'static [AggregateKind] = &[Listing::KIND];
    const LIMITS: WriteLimits = WriteLimits { events: 500, bytes: 5 * 1024 * 1024, in_flight: 3, timeout: SEARCH_TIMEOUT };

    /// The item's two lines of the bulk.
    type Write = Vec<u8>;

    fn open(stores: &StoreClients, generation: &Generation) -> Self {
        Self { opensearch: stores.opensearch.clone(), index: generation.search_index(&stores.search_alias) }
    }

    async fn provision(stores: &StoreClients, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
        index::provision(&stores.opensearch, &stores.search_alias, generations).await
    }

    fn render(&self, event: &Event) -> anyhow::Result<Vec<u8>> {
        let mut item = Vec::new();
        match event.state::<Listing>()? {
            Some(listing) => listing_search::put(&mut item, &self.index, &listing)?,
            None => listing_search::put_tombstone(&mut item, &self.index, ListingId(event.meta.key.id), event.meta.version)?,
        }
        Ok(item)
    }

    async fn store(&self, items: Vec<Vec<u8>>) -> Result<Vec<EventResult>, SystemicFailure> {
        self.bulk(&items).await
    }
}

/// What the answer to a bulk means for all its items.
#[derive(Debug)]
enum BulkOutcome {
    /// There is a result for each item.
    Answered,
    TooLarge,
    /// The only item can never be stored.
    Poison(anyhow::Error),
    Refused(anyhow::Error),
}

fn classify_request(status: StatusCode, items: usize, answer: &[u8]) -> BulkOutcome {
    match status.as_u16() {
        200 => BulkOutcome::Answered,
        413 if items > 1 => BulkOutcome::TooLarge,
        413 => BulkOutcome::Poison(anyhow!("OpenSearch takes no document that large")),
        status => BulkOutcome::Refused(anyhow!("OpenSearch refuses the bulk with {status}: {}", beginning(answer))),
    }
}

#[derive(Debug, Deserialize)]
struct BulkAnswer {
    items: Vec<BulkItem>,
}

#[derive(Debug, Deserialize)]
struct BulkItem {
    index: ItemResult,
}

#[derive(Debug, Deserialize)]
struct ItemResult {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Debug, Default, Deserialize)]
struct ItemError {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
}

/// Classifies the items of a bulk, each for itself. A failure of the whole request if one item is about the index or the node, or if none of
/// several was taken for want of capacity.
fn classify_items(answer: &[u8], sent: usize) -> Result<Vec<EventResult>, SystemicFailure> {
    let answer: BulkAnswer = serde_json::from_slice(answer)
        .map_err(|error| SystemicFailure(anyhow!("OpenSearch's answer cannot be read: {error}")))?;
    if answer.items.len() != sent {
        return Err(SystemicFailure(anyhow!("OpenSearch answered for {} of {sent} documents", answer.items.len())));
    }
    let results: Vec<EventResult> =
        answer.items.into_iter().map(|item| classify_item(item.index)).collect::<Result<_, SystemicFailure>>()?;
    match results.first() {
        Some(Err(EventFailure::Transient(error)))
            if sent > 1 && results.iter().all(|result| matches!(result, Err(EventFailure::Transient(_)))) =>
        {
            Err(SystemicFailure(anyhow!("OpenSearch takes none of {sent} documents: {error:#}")))
        }
        _ => Ok(results),
    }
}

fn classify_item(item: ItemResult) -> Result<EventResult, SystemicFailure> {
    let ItemError { kind, reason } = item.error.unwrap_or_default();
    let error = || anyhow!("OpenSearch: {} {kind}: {}", item.status, reason.as_deref().unwrap_or_default());
    match (item.status, kind.as_str()) {
        (200 | 201, _) => Ok(Ok(WriteEffect::Applied)),
        (409, "version_conflict_engine_exception") => Ok(Ok(WriteEffect::Superseded)),
        // The flood stage of a full disk comes as 403 or as 429, so the name of the error decides.
        (_, "cluster_block_exception" | "index_not_found_exception" | "index_closed_exception") | (401 | 403, _) => {
            Err(SystemicFailure(error()))
        }
        (400, _) => Ok(Err(EventFailure::Poison(error()))),
        (429 | 500..=599, _) => Ok(Err(EventFailure::Transient(error()))),
        // An answer that is not known may pass: the event is tried again, and becomes a dead letter if it fails too often.
        _ => Ok(Err(EventFailure::Transient(anyhow!("an unknown kind of failure: {}", error())))),
    }
}

/// Cuts an answer down to what a log line needs.
fn beginning(answer: &[u8]) -> String {
    const SHOWN: usize = 300;
    String::from_utf8_lossy(&answer[..answer.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(status: u16, kind: &str) -> String {
        format!(r#"{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"because"}}}}}}"#)
    }

    fn classified(items: &[String]) -> Result<Vec<EventResult>, SystemicFailure> {
        classify_items(format!(r#"{{"errors":true,"items":[{}]}}"#, items.join(",")).as_bytes(), items.len())
    }

    #[test]
    fn each_item_is_judged_for_itself() {
        let outcomes = classified(&[
            r#"{"index":{"status":201}}"#.to_owned(),
            item(409, "version_conflict_engine_exception"),
            item(429, "rejected_execution_exception"),
            item(503, "unavailable_shards_exception"),
            item(400, "mapper_parsing_exception"),
            item(400, "strict_dynamic_mapping_exception"),
            item(418, "something_new"),
        ])
        .unwrap();
        assert!(matches!(
            outcomes[..],
            [
                Ok(WriteEffect::Applied),
                Ok(WriteEffect::Superseded),
                Err(EventFailure::Transient(_)),
                Err(EventFailure::Transient(_)),
                Err(EventFailure::Poison(_)),
                Err(EventFailure::Poison(_)),
                Err(EventFailure::Transient(_))
            ]
        ));
    }

    #[test]
    fn what_is_about_the_index_is_no_items_fault() {
        for (status, kind) in [
            (404, "index_not_found_exception"),
            (403, "cluster_block_exception"),
            (429, "cluster_block_exception"),
            (401, "security_exception"),
        ] {
            assert!(classified(&[item(status, kind), r#"{"index":{"status":201}}"#.to_owned()]).is_err(), "{status} {kind}");
        }
    }

    #[test]
    fn when_none_of_several_is_taken_the_store_is_overloaded() {
        let busy = || item(429, "rejected_execution_exception");
        assert!(classified(&[busy(), busy()]).is_err());
        assert!(classified(&[busy()]).is_ok());
        assert!(classified(&[busy(), item(400, "mapper_parsing_exception")]).is_ok());
    }

    #[test]
    fn the_whole_answer_is_judged_by_its_status() {
        let classify = |status: u16, items| classify_request(StatusCode::from_u16(status).unwrap(), items, b"{}");
        assert!(matches!(classify(200, 2), BulkOutcome::Answered));
        assert!(matches!(classify(413, 2), BulkOutcome::TooLarge));
        assert!(matches!(classify(413, 1), BulkOutcome::Poison(_)));
        for status in [400, 401, 403, 404, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(classify(status, 1), BulkOutcome::Refused(_)), "{status}");
        }
    }

    #[test]
    fn an_answer_that_lacks_items_is_no_answer() {
        assert!(classify_items(br#"{"items":[]}"#, 1).is_err());
        assert!(classify_items(b"<html>", 1).is_err());
    }
}
