//! The words of a search as a query of OpenSearch: which listings match, and how well.
//!
//! `docs/SEARCH.md` has what each part is worth. Structure was measured, weights were not tuned: they do not carry over.

use serde_json::{Value, json};
use views::listing_search::{analyzer, field};

use super::clause::object;
use super::words::{InLanguage, Words};
use crate::cursor::Stage;

/// A listing that has all words is worth more than any that has one of them often.
const ALL_WORDS: f32 = 3.0;
/// `power bank` is `powerbank`.
const COMPOUND: f32 = 3.0;
/// A part number or a measure, however it is punctuated.
const CODE: f32 = 3.0;
/// The words are exactly the name of the product type: `laptop` is a laptop, not a bag for one.
const TYPE: f32 = 1.0;
/// All words, some misspelled: below those that are right.
const MISSPELLED: f32 = 1.0;
/// Matches, and is worth nothing by itself: the scored fields order these.
const NOTHING: f32 = 0.0;

/// How much a second field that matches adds to the best one.
const TIE_BREAKER: f32 = 0.1;
/// Letters from which on one, and two, may differ.
const FUZZINESS: &str = "AUTO:5,9";
/// What Serbian is called, and its sisters that its stemmer serves as well.
const SERBIAN_SUBTAGS: [&str; 5] = ["sr", "hr", "bs", "sh", "cnr"];

/// Fields in which a language's words are, and those listings in which they are looked for.
struct Language {
    all: &'static str,
    scored: &'static [&'static str],
    only: Option<Value>,
}

const WORDS_SCORED: &[&str] = &[field::TITLE, field::DESCRIPTION, field::BRAND];

/// Which listings match, as one clause that also scores.
pub fn matching(words: &Words, stage: Stage) -> Value {
    let text = words.as_str();
    let languages = languages(words);
    let in_all = |clause: &dyn Fn(&Language) -> Value| best_of(languages.iter().map(|of| of.within(clause(of))).collect());

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

/// As well as the best of them matches.
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

/// One word of the query is two in the listing, or two are one.
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

impl Language {
    fn within(&self, clause: Value) -> Value {
        match &self.only {
            None => clause,
            Some(only) => object([("bool", object([("must", clause), ("filter", only.clone())]))]),
        }
    }
}

fn languages(words: &Words) -> Vec<Language> {
    let mut languages = vec![Language { all: field::ALL, scored: WORDS_SCORED, only: None }];
    let serbian = |only| Language { all: field::ALL_SERBIAN, scored: &[field::TITLE_SERBIAN, field::DESCRIPTION_SERBIAN], only };
    match words.in_serbian() {
        InLanguage::Everywhere => languages.push(serbian(None)),
        InLanguage::WhereSaid => languages.push(serbian(Some(json!({"terms": {field::LANGUAGE: SERBIAN_SUBTAGS}})))),
        InLanguage::No => {}
    }
    match words.in_russian() {
        InLanguage::Everywhere => languages.push(Language {
            all: field::ALL_RUSSIAN,
            scored: &[field::TITLE_RUSSIAN, field::DESCRIPTION_RUSSIAN],
            only: None,
        }),
        InLanguage::WhereSaid | InLanguage::No => {}
    }
    languages
}

/// Where matches are shown, by the field of the listing that they are in.
pub fn highlight() -> Value {
    let whole = json!({"number_of_fragments": 0});
    let parts = json!({"number_of_fragments": 3, "fragment_size": 150});
    json!({
        // The text is shown as HTML: whatever a seller wrote in it must not become markup.
        "encoder": "html",
        "require_field_match": false,
        "fields": {
            field::TITLE: whole, field::TITLE_SERBIAN: whole, field::TITLE_RUSSIAN: whole,
            field::DESCRIPTION: parts, field::DESCRIPTION_SERBIAN: parts, field::DESCRIPTION_RUSSIAN: parts,
        },
    })
}
