//! Settings and mapping of the index, and the hash by which `projector provision` recognizes an index with another mapping.

use std::hash::Hasher as _;

use fnv::FnvHasher;
use serde_json::{Value, json};

use super::{NAME, analysis::analysis, analyzer};
use crate::listing_catalog::FILTERABLE_MAX;

/// Longest keyword that is indexed, in characters. With four bytes each it stays far below Lucene's limit of 32766 bytes per
/// term, above which the whole document is rejected.
const LONGEST_KEYWORD: usize = FILTERABLE_MAX;
/// How soon new documents become searchable. It is set explicitly because by default an index without searches is not refreshed.
const REFRESH_INTERVAL: &str = "1s";

/// Settings and mapping of one index, as the body of its creation.
#[must_use]
pub fn index_body() -> Value {
    let (settings, mut mappings) = (settings(), mappings());
    let hash = hash_of(&settings, &mappings);
    if let Some(mapping) = mappings.as_object_mut() {
        mapping.insert("_meta".to_owned(), json!({"mapping_hash": hash}));
    }
    json!({"settings": settings, "mappings": mappings})
}

/// The composable template of all generations of an alias, so that an index that OpenSearch creates on a first write has the right
/// mapping. It does not set the index's `mapping_hash`: an explicit mapping overrides a template's, and the hash would then be wrong.
#[must_use]
pub fn template(alias: &str) -> Value {
    json!({
        "index_patterns": [format!("{alias}-*")],
        "priority": 100,
        "template": { "settings": settings(), "mappings": mappings() },
        "_meta": { "projection": NAME, "mapping_hash": mapping_hash() },
    })
}

/// The hash of the mapping that this program writes; the mapping of an index has its own in `_meta.mapping_hash`.
#[must_use]
pub fn mapping_hash() -> String {
    hash_of(&settings(), &mappings())
}

/// FNV-1a, which is the same on every machine and in every build, unlike the standard library's hasher.
fn hash_of(settings: &Value, mappings: &Value) -> String {
    // The analyzers belong to the mapping; shards, replicas and refresh interval may differ while a generation is built.
    let mut hasher = FnvHasher::default();
    hasher.write(format!("{}{mappings}", settings["analysis"]).as_bytes());
    format!("{:016x}", hasher.finish())
}

fn settings() -> Value {
    json!({
        "number_of_shards": 1,
        "number_of_replicas": 0,
        "refresh_interval": REFRESH_INTERVAL,
        "analysis": analysis(),
    })
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": LONGEST_KEYWORD})
}

/// A keyword for filters and facets whose words are searched too.
fn keyword_in_all() -> Value {
    json!({"type": "keyword", "ignore_above": LONGEST_KEYWORD, "copy_to": "all"})
}

/// Returned with the document, never searched.
fn unindexed() -> Value {
    json!({"type": "object", "enabled": false})
}

fn words(fields: &Value) -> Value {
    json!({"type": "text", "analyzer": analyzer::WORDS, "copy_to": "all", "fields": fields})
}

fn in_language(language_analyzer: &str) -> Value {
    json!({"type": "text", "analyzer": language_analyzer})
}

/// For fields that are scored with a constant: no lengths, frequencies or positions are indexed.
fn presence(of_analyzer: &str) -> Value {
    json!({"type": "text", "analyzer": of_analyzer, "norms": false, "index_options": "docs"})
}

/// For autocomplete: indexed before any query uses it, so that adding the query needs no rebuild.
fn as_you_type() -> Value {
    json!({"type": "search_as_you_type", "analyzer": analyzer::WORDS, "max_shingle_size": 2})
}

fn mappings() -> Value {
    json!({
        "dynamic": "strict",
        "properties": {
            // Derived from the listing.
            "deleted": {"type": "boolean"},
            "categories": keyword(),
            "type": {
                "type": "text", "analyzer": analyzer::WORDS, "copy_to": "all",
                "fields": {"whole": presence(analyzer::WHOLE), "suggest": as_you_type()},
            },
            "all": {
                "type": "text", "analyzer": analyzer::WORDS, "norms": false, "index_options": "docs",
                "fields": {
                    "pairs": presence(analyzer::PAIRS),
                    "codes": presence(analyzer::CODES),
                    "serbian": presence(analyzer::SERBIAN),
                    "russian": presence(analyzer::RUSSIAN),
                },
            },

            // The listing.
            "id": {"type": "keyword"},
            "version": {"type": "long"},
            "status": {"type": "keyword"},
            "visibility": {"type": "keyword"},
            "seller_id": {"type": "keyword"},
            "title": words(&json!({
                "serbian": in_language(analyzer::SERBIAN),
                "russian": in_language(analyzer::RUSSIAN),
                "suggest": as_you_type(),
                "sort": {"type": "keyword", "normalizer": "lower", "ignore_above": LONGEST_KEYWORD},
            })),
            "description": words(&json!({
                "serbian": in_language(analyzer::SERBIAN),
                "russian": in_language(analyzer::RUSSIAN),
            })),
            "category": {"type": "keyword", "index": false, "doc_values": false, "ignore_above": LONGEST_KEYWORD},
            "price": {"properties": {
                // Three digits: the most that a currency has.
                "amount": {"type": "scaled_float", "scaling_factor": 1000},
                "currency": {"type": "keyword"},
            }},
            "condition": {"type": "keyword"},
            "brand": words(&json!({"whole": keyword(), "suggest": as_you_type()})),
            "language": {"type": "keyword", "normalizer": "language", "ignore_above": LONGEST_KEYWORD},
            "attributes": {"type": "nested", "properties": {
                "name": {"type": "keyword", "normalizer": "lower", "ignore_above": LONGEST_KEYWORD},
                "value": keyword_in_all(),
                "unit": keyword(),
            }},
            "tags": keyword_in_all(),
            "location": {"properties": {
                "country": keyword(),
                "city": keyword_in_all(),
                "address": {"type": "text", "index": false},
                "point": {"type": "geo_point"},
            }},
            "images": unindexed(),
            "variants": {"properties": {
                "id": {"type": "keyword"},
                "sku": keyword_in_all(),
                "label": keyword_in_all(),
                "price": unindexed(),
                "available": {"type": "boolean"},
            }},
            "available": {"type": "boolean"},
            "external_id": keyword(),
            // Microseconds, as everywhere else, so that newest first is the same order here.
            "created_at": {"type": "date_nanos"},
            "updated_at": {"type": "date"},
            "published_at": {"type": "date"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_which_mapping_it_has() {
        assert_eq!(index_body()["mappings"]["_meta"]["mapping_hash"], mapping_hash());
        let mut template = template("listings");
        assert_eq!(template["_meta"]["mapping_hash"], mapping_hash());
        assert_eq!(template["template"]["mappings"]["_meta"], Value::Null);
        template["template"]["mappings"]["_meta"] = index_body()["mappings"]["_meta"].clone();
        assert_eq!(template["template"], index_body());
    }

    #[test]
    fn the_hash_sees_analyzers_and_fields_but_not_replicas() {
        let (settings, mappings) = (settings(), mappings());
        let changed = |pointer: &str, of: &Value| {
            let mut other = of.clone();
            *other.pointer_mut(pointer).unwrap() = json!("other");
            other
        };
        assert_eq!(hash_of(&changed("/number_of_replicas", &settings), &mappings), mapping_hash());
        assert_ne!(hash_of(&changed("/analysis/filter/english_light/language", &settings), &mappings), mapping_hash());
        assert_ne!(hash_of(&settings, &changed("/properties/tags/type", &mappings)), mapping_hash());
    }
}
