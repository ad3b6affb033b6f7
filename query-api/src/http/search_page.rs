//! The JSON of a page of a search.

use std::collections::BTreeMap;

use events::Listing;
use serde::Serialize;
use utoipa::ToSchema;

use crate::search::{Count, FoundItem, Highlight, SearchResult, Total};

/// Estimated bytes of scores, facets and cursor.
const REST_CAPACITY: usize = 4096;

/// A page of a search.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchPage {
    items: Vec<FoundListing>,
    #[serde(flatten)]
    rest: Rest,
}

/// A listing, how well it matches, and where.
#[derive(Debug, Serialize, ToSchema)]
struct FoundListing {
    #[serde(flatten)]
    listing: Listing,
    /// Null unless the order is by relevance.
    #[schema(required)]
    score: Option<f64>,
    /// With `highlight=1`: the parts that matched, as HTML, by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    highlight: Option<Highlight>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Rest {
    total: Total,
    facets: BTreeMap<String, Vec<Count>>,
    /// Continues after the last item; null when there are no more.
    #[schema(required)]
    next_cursor: Option<String>,
    took_ms: u64,
    /// Whether Postgres answered, because OpenSearch is unavailable.
    degraded: bool,
    /// The parts of the question that a degraded answer leaves out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<&'static str>,
}

/// Renders a [`SearchPage`]. The listings in it are not parsed: they are the text that the store has.
pub fn render(found: SearchResult, next_cursor: Option<String>, took_ms: u64) -> Result<Vec<u8>, serde_json::Error> {
    let SearchResult { items, total, facets, degraded, omitted, .. } = found;
    let listings: usize = items.iter().map(|item| item.listing.len()).sum();
    let mut body = Vec::with_capacity(listings + REST_CAPACITY);
    body.extend_from_slice(b"{\"items\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        render_item(item, &mut body)?;
    }
    body.extend_from_slice(b"],");
    let rest = serde_json::to_vec(&Rest { total, facets, next_cursor, took_ms, degraded, omitted })?;
    body.extend_from_slice(&rest[1..]);
    Ok(body)
}

fn render_item(item: &FoundItem, body: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let object = item.listing.trim_end();
    body.extend_from_slice(object.strip_suffix('}').unwrap_or(object).as_bytes());
    body.extend_from_slice(b",\"score\":");
    body.extend_from_slice(item.score.as_ref().map_or("null", |score| score.get()).as_bytes());
    if let Some(highlight) = &item.highlight {
        body.extend_from_slice(b",\"highlight\":");
        serde_json::to_writer(&mut *body, highlight)?;
    }
    body.push(b'}');
    Ok(())
}
