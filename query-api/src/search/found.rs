//! What was found, and how it is shown.

use std::collections::BTreeMap;

use events::Listing;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::facets::{Count, Facets};
use crate::cursor::Cursor;

/// One page of what was found, by whichever store.
#[derive(Debug)]
pub struct Found {
    pub items: Vec<Item>,
    pub total: Total,
    pub facets: Facets,
    /// Behind the last item; `None` when there is no more.
    pub next: Option<Cursor>,
    /// Answered by Postgres, because OpenSearch is away.
    pub degraded: bool,
    /// What was asked for and is not in it.
    pub omitted: Vec<&'static str>,
}

/// A listing that was found.
#[derive(Debug)]
pub struct Item {
    /// The listing as the API shows it: a JSON object, kept as the text it is stored as.
    pub listing: Box<str>,
    /// As the store wrote it; `None` where the order is another.
    pub score: Option<Box<RawValue>>,
    pub highlight: Option<Highlight>,
}

/// The parts of a listing that matched, as HTML: the matches in `<em>`, everything else escaped. By field.
pub type Highlight = BTreeMap<&'static str, Vec<String>>;

/// How many listings match.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Total {
    pub value: u64,
    pub relation: Relation,
}

/// Whether a total is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    Eq,
    /// There are at least as many.
    Gte,
}

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
    /// Absent an order by relevance: null.
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
    /// Continues behind the last item; null when there is no more.
    #[schema(required)]
    next_cursor: Option<String>,
    took_ms: u64,
    /// Whether this is the second-best answer, from another store.
    degraded: bool,
    /// What was asked for and is not in a degraded answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<&'static str>,
}

impl Found {
    /// The body of the answer. The listings in it are not parsed: they are what the store holds.
    pub fn render(self, took_ms: u64) -> Result<(Vec<u8>, Option<String>), serde_json::Error> {
        let next_cursor = self.next.map(|cursor| cursor.encode()).transpose()?;
        let listings: usize = self.items.iter().map(|item| item.listing.len()).sum();
        let mut body = Vec::with_capacity(listings + ROOM_FOR_THE_REST);
        body.extend_from_slice(b"{\"items\":[");
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            item.render(&mut body)?;
        }
        body.extend_from_slice(b"],");
        let rest = Rest {
            total: self.total,
            facets: self.facets,
            next_cursor: next_cursor.clone(),
            took_ms,
            degraded: self.degraded,
            omitted: self.omitted,
        };
        let rest = serde_json::to_vec(&rest)?;
        body.extend_from_slice(&rest[1..]);
        Ok((body, next_cursor))
    }
}

/// Scores, facets and cursor, in bytes: about right is enough.
const ROOM_FOR_THE_REST: usize = 4096;

impl Item {
    fn render(&self, body: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let object = self.listing.trim_end();
        body.extend_from_slice(object.strip_suffix('}').unwrap_or(object).as_bytes());
        body.extend_from_slice(b",\"score\":");
        body.extend_from_slice(self.score.as_ref().map_or("null", |score| score.get()).as_bytes());
        if let Some(highlight) = &self.highlight {
            body.extend_from_slice(b",\"highlight\":");
            serde_json::to_writer(&mut *body, highlight)?;
        }
        body.push(b'}');
        Ok(())
    }
}
