//! How text becomes terms. The effect of each choice was measured: see `docs/SEARCH.md` and the relevance tests.

use serde_json::{Value, json};

use super::analyzer;

/// Units that people write both glued to their number and apart from it.
const UNITS: &str = "gb|tb|mb|kb|gbit|mbit|mah|wh|kwh|kw|w|kv|v|khz|mhz|ghz|hz|mm|cm|dm|m|km|inch|in|ft|kg|mg|g|lb|oz|ml|cl|l|mp|px|dpi|rpm|ppm|db|va|fps";

/// Longest term of fields that index a text as one term; longer ones are not indexed (Lucene rejects terms above 32766 bytes).
const LONGEST_WHOLE: u32 = 200;

/// Analyzers, normalizers and their filters.
pub(super) fn analysis() -> Value {
    json!({
        "char_filter": {
            // "16 GB" -> "16GB"
            "glue_units": {"type": "pattern_replace", "pattern": format!(r"(?i)(\d)\s{{1,3}}({UNITS})\b"), "replacement": "$1$2"},
            // "mobile-phones" is a product type like "Mobile phones"
            "segment_to_words": {"type": "pattern_replace", "pattern": r"[-_\s]+", "replacement": " "},
            // "sr-Latn" -> "sr"
            "primary_subtag": {"type": "pattern_replace", "pattern": "[-_].*", "replacement": ""},
        },
        "filter": {
            "english_possessive": {"type": "stemmer", "language": "possessive_english"},
            // Plurals only: Porter and KStem join words that buyers tell apart.
            "english_light": {"type": "stemmer", "language": "minimal_english"},
            "serbian_stems": {"type": "stemmer", "language": "serbian"},
            "russian_stems": {"type": "stemmer", "language": "russian"},
            "yo_as_ye": {"type": "pattern_replace", "pattern": "ё", "replacement": "е"},
            "glued_pairs": {
                "type": "shingle", "min_shingle_size": 2, "max_shingle_size": 2,
                "output_unigrams": false, "token_separator": "",
            },
            "code_letters": {"type": "pattern_replace", "pattern": "[^a-z0-9]", "replacement": ""},
            // A code has a letter, a digit and at least three characters, or is at least four digits.
            "code_or_nothing": {
                "type": "pattern_replace",
                "pattern": "^(?!(?=.*[a-z])(?=.*[0-9]).{3,}$|[0-9]{4,}$).*$", "replacement": "",
            },
            "not_empty": {"type": "length", "min": 1},
            "not_huge": {"type": "length", "min": 1, "max": LONGEST_WHOLE},
        },
        "analyzer": {
            analyzer::WORDS: {
                "type": "custom", "tokenizer": "standard",
                "filter": ["english_possessive", "lowercase", "asciifolding", "english_light"],
            },
            analyzer::PAIRS: {
                "type": "custom", "tokenizer": "standard",
                "filter": ["english_possessive", "lowercase", "asciifolding", "english_light", "glued_pairs"],
            },
            analyzer::CODES: {
                "type": "custom", "char_filter": ["glue_units"], "tokenizer": "whitespace",
                "filter": ["lowercase", "asciifolding", "code_letters", "code_or_nothing", "not_empty"],
            },
            // The normalization folds both scripts into Latin without accents, which is what the stemmer expects.
            analyzer::SERBIAN: {
                "type": "custom", "tokenizer": "standard",
                "filter": ["lowercase", "serbian_normalization", "serbian_stems"],
            },
            analyzer::RUSSIAN: {
                "type": "custom", "tokenizer": "standard",
                "filter": ["lowercase", "yo_as_ye", "russian_stems"],
            },
            analyzer::WHOLE: {
                "type": "custom", "char_filter": ["segment_to_words"], "tokenizer": "keyword",
                "filter": ["trim", "lowercase", "asciifolding", "english_light", "not_huge"],
            },
        },
        "normalizer": {
            "lower": {"type": "custom", "filter": ["lowercase"]},
            "language": {"type": "custom", "char_filter": ["primary_subtag"], "filter": ["lowercase"]},
        },
    })
}
