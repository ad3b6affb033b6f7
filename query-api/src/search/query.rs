//! The words of a search as an OpenSearch query: which listings match, and their score.
//!
//! `docs/SEARCH.md` has the measured effect of each part. The weights are not tuned: tuned weights do not carry over to other catalogs.

use serde_json::{Map, Value, json};
use views::listing_search::{analyzer, field};

use super::words::{InLanguage, Words};
use crate::cursor::Stage;

/// All words match: such a listing ranks above one that has some of the words often.
const ALL_WORDS: f32 = 3.0;
/// Compounds: `power bank` matches `powerbank`.
const COMPOUND: f32 = 3.0;
/// Part numbers and measures, regardless of punctuation.
const CODE: f32 = 3.0;
/// The words are the name of the product type: `laptop` means a laptop rather than a bag for one.
const TYPE: f32 = 1.0;
/// All words match, some of them misspelled.
const MISSPELLED: f32 = 1.0;
/// Some of the words match: only the scored fields order these.
const NOTHING: f32 = 0.0;

/// The share of the score of other matching fields that is added to that of the best.
const TIE_BREAKER: f32 = 0.1;
/// Words of five letters may have one misspelled letter, words of nine letters two.
const FUZZINESS: &str = "AUTO:5,9";
/// Serbian and the related languages that its stemmer supports.
const SERBIAN_SUBTAGS: [&str; 5] = ["sr", "hr", "bs", "sh", "cnr"];

/// The fields for the words of one language, and a restriction to some listings.
struct LanguageFields {
    all: &'static str,
    scored: &'static [&'static str],
    only: Option<Value>,
}

const WORDS_SCORED: &[&str] = &[field::TITLE, field::DESCRIPTION, field::BRAND];

/// The clause that matches and scores listings.
pub fn matching(words: &Words, stage: Stage) -> Value {
    let text = words.as_str();
    let languages = languages(words);
    let in_all = |clause: &dyn Fn(&LanguageFields) -> Value| best_of(languages.iter().map(|of| of.within(clause(of))).collect());

    let mut tiers = vec![
        constant(ALL_WORDS, in_all(&|of| json!({"match": {of.all: {"query": text, "operator": "and"}}}))),
        constant(COMPOUND, compound(text)),
        constant(CODE, json!({"match": {field::ALL_CODES: {"query": text, "operator": "and"}}})),
        constant(TYPE, json!({"match": {field::TYPE: {"query": text}}})),
    ];
    if stage == Stage::Loose {
        if words.may_be_fuzzy() {
            tiers.push(constant(MISSPELLED, in_all(&|of| misspelled(of.all, text))));
        }
        tiers.push(constant(NOTHING, in_all(&|of| json!({"match": {of.all: {"query": text}}}))));
    }
    let scored = in_all(&|of| json!({"multi_match": {"query": text, "fields": of.scored, "tie_breaker": TIE_BREAKER}}));
    let any_tier = object([("bool", object([("should", Value::Array(tiers)), ("minimum_should_match", json!(1))]))]);
    object([("bool", object([("must", any_tier), ("should", scored)]))])
}

/// Scores with the best matching clause.
fn best_of(mut clauses: Vec<Value>) -> Value {
    match clauses.pop() {
        Some(only) if clauses.is_empty() => only,
        last => {
            clauses.extend(last);
            object([("dis_max", object([("queries", Value::Array(clauses))]))])
        }
    }
}

fn constant(boost: f32, filter: Value) -> Value {
    object([("constant_score", object([("filter", filter), ("boost", json!(boost))]))])
}

/// Matches where two words of the query are one in the listing, or the other way round.
fn compound(text: &str) -> Value {
    json!({"bool": {"should": [
        {"match": {field::ALL_PAIRS: {"query": text, "analyzer": analyzer::WORDS, "operator": "and"}}},
        {"match": {field::ALL: {"query": text, "analyzer": analyzer::PAIRS, "operator": "and"}}},
    ]}})
}

fn misspelled(all: &str, text: &str) -> Value {
    json!({"match": {all: {
        "query": text, "operator": "and", "fuzziness": FUZZINESS, "prefix_length": 1, "max_expansions": 20,
    }}})
}

impl LanguageFields {
    fn within(&self, clause: Value) -> Value {
        match &self.only {
            None => clause,
            Some(only) => object([("bool", object([("must", clause), ("filter", only.clone())]))]),
        }
    }
}

fn languages(words: &Words) -> Vec<LanguageFields> {
    let mut languages = vec![LanguageFields { all: field::ALL, scored: WORDS_SCORED, only: None }];
    let serbian =
        |only| LanguageFields { all: field::ALL_SERBIAN, scored: &[field::TITLE_SERBIAN, field::DESCRIPTION_SERBIAN], only };
    match words.in_serbian() {
        InLanguage::Everywhere => languages.push(serbian(None)),
        InLanguage::WhereSaid => languages.push(serbian(Some(json!({"terms": {field::LANGUAGE: SERBIAN_SUBTAGS}})))),
        InLanguage::No => {}
    }
    match words.in_russian() {
        InLanguage::Everywhere => languages.push(LanguageFields {
            all: field::ALL_RUSSIAN,
            scored: &[field::TITLE_RUSSIAN, field::DESCRIPTION_RUSSIAN],
            only: None,
        }),
        InLanguage::WhereSaid | InLanguage::No => {}
    }
    languages
}

/// The `highlight` clause.
pub fn highlight() -> Value {
    let whole = json!({"number_of_fragments": 0});
    let parts = json!({"number_of_fragments": 3, "fragment_size": 150});
    json!({
        // Clients show the text as HTML: a seller's text must not become markup.
        "encoder": "html",
        "require_field_match": false,
        "fields": {
            field::TITLE: whole, field::TITLE_SERBIAN: whole, field::TITLE_RUSSIAN: whole,
            field::DESCRIPTION: parts, field::DESCRIPTION_SERBIAN: parts, field::DESCRIPTION_RUSSIAN: parts,
        },
    })
}

/// A JSON object of these members. It moves the values, while `json!` copies each of them once per level; use `json!` for leaves.
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let mut object = Map::new();
    for (name, value) in members {
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

/// Requires all of these filters, without a score.
pub fn filtered(filters: Vec<Value>) -> Value {
    object([("bool", object([("filter", Value::Array(filters))]))])
}
