//! Which generation of each projection is served: the copy in Redis of what `projection.generations` says.
//!
//! Postgres is the source. The projector writes this copy whenever it has read the table and something changed, and again every
//! [`REWRITE_AFTER`], because Redis may evict the key. query-api reads it while Postgres does not answer, so that a page costs no
//! round trip more and a query-api that starts without Postgres still knows the serving generations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The Redis key. Its value is [`ServingGenerations`] as JSON: `{"listing_page":1,"listing_search":2}`.
pub const SERVING_KEY: &str = "generations:serving";
/// How often the projector writes the key although nothing changed.
pub const REWRITE_AFTER: Duration = Duration::from_secs(30);
/// How long the key lives without being written again (PROTOCOL P9).
pub const SERVING_TTL: Duration = Duration::from_hours(24);

/// The serving generation of each projection, by the projection's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServingGenerations(BTreeMap<String, i32>);

impl ServingGenerations {
    /// The serving generation of a projection; `None` if none serves.
    #[must_use]
    pub fn of(&self, projection: &str) -> Option<i32> {
        self.0.get(projection).copied()
    }

    /// The value at [`SERVING_KEY`].
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Reads the value at [`SERVING_KEY`]; `None` if it is something else.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

impl<Name: Into<String>> FromIterator<(Name, i32)> for ServingGenerations {
    fn from_iter<Pairs: IntoIterator<Item = (Name, i32)>>(pairs: Pairs) -> Self {
        Self(pairs.into_iter().map(|(name, number)| (name.into(), number)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_in_redis_reads_back() {
        let serving: ServingGenerations = [("listing_search", 2), ("listing_page", 1)].into_iter().collect();
        assert_eq!(serving.to_json(), r#"{"listing_page":1,"listing_search":2}"#);
        assert_eq!(ServingGenerations::from_json(serving.to_json().as_bytes()), Some(serving.clone()));
        assert_eq!((serving.of("listing_search"), serving.of("stock_levels")), (Some(2), None));
    }

    #[test]
    fn another_value_is_not_taken_for_a_pointer() {
        for json in ["", "[]", "1", r#"{"listing_page":"1"}"#] {
            assert_eq!(ServingGenerations::from_json(json.as_bytes()), None, "{json}");
        }
    }
}
