//! Relevance on queries generated from products: each should find the product that it was made from, or an equal one.

use std::collections::{BTreeSet, HashMap};

use acceptance::Marketplace;
use events::Listing;

use super::catalogue::Catalogue;
use super::{hits, mean, reciprocal_rank};

/// Number of queries per suite.
const QUERIES: usize = 200;
/// Number of words at the start of a title that make a query.
const TITLE_WORDS: usize = 5;
/// Units that are written with and without a space after the number.
const UNITS: [&str; 11] = ["GB", "TB", "MB", "W", "GHz", "MHz", "mm", "cm", "m", "VA", "dpi"];

/// Queries of one kind, and the lower bound of their result.
pub struct Suite {
    pub name: &'static str,
    /// Lower bound of the MRR: the value of the current query shape minus a margin.
    pub least: f64,
    pub queries: Vec<KnownItemQuery>,
}

/// A search text, and the products that are correct hits.
pub struct KnownItemQuery {
    words: String,
    /// External ids of the product that the query was made from, and of equal products.
    correct: BTreeSet<String>,
}

impl Suite {
    /// Runs all queries and returns the mean reciprocal rank (MRR).
    pub async fn judge(&self, market: &Marketplace) -> anyhow::Result<f64> {
        let mut ranks = Vec::new();
        for query in &self.queries {
            ranks.push(reciprocal_rank(&hits(market, &query.words).await?, |hit| query.correct.contains(hit)));
        }
        Ok(mean(&ranks))
    }
}

/// Generates all suites from the catalogue.
pub fn suites(catalogue: &Catalogue) -> Vec<Suite> {
    let numbered: Vec<(&str, &Listing)> = catalogue.listings.iter().filter_map(|it| Some((part_number(it)?, it))).collect();
    let by_code = group(numbered.iter().map(|(number, listing)| (code(number), *listing)));
    let part_numbers = |keep: &dyn Fn(&str) -> bool, written: &dyn Fn(&str) -> String| {
        let kept = numbered.iter().filter(|(number, _)| keep(number));
        spread(
            kept.map(|(number, _)| KnownItemQuery { words: written(number), correct: by_code[&code(number)].clone() }).collect(),
        )
    };
    let hyphenated = |number: &str| number.contains('-');

    let by_title = group(catalogue.listings.iter().map(|listing| (listing.title.to_lowercase(), listing)));
    let by_beginning = group(catalogue.listings.iter().filter_map(|listing| Some((beginning(listing)?.to_lowercase(), listing))));
    let respaced = catalogue.listings.iter().filter_map(|listing| {
        let words = with_a_unit_respaced(&listing.title)?;
        Some(KnownItemQuery { words, correct: by_title[&listing.title.to_lowercase()].clone() })
    });
    let misspelled = catalogue.listings.iter().filter_map(|listing| {
        let beginning = beginning(listing)?;
        Some(KnownItemQuery { words: misspelled(&beginning)?, correct: by_beginning[&beginning.to_lowercase()].clone() })
    });

    vec![
        Suite { name: "part number as written", least: 0.96, queries: part_numbers(&|_| true, &str::to_owned) },
        Suite {
            name: "part number without its hyphen",
            least: 0.95,
            queries: part_numbers(&hyphenated, &|number| number.replace('-', "")),
        },
        Suite {
            name: "part number with a space for its hyphen",
            least: 0.94,
            queries: part_numbers(&hyphenated, &|number| number.replace('-', " ")),
        },
        Suite { name: "title with a unit respaced", least: 0.81, queries: spread(respaced.collect()) },
        Suite { name: "first five words of a title, one misspelled", least: 0.84, queries: spread(misspelled.collect()) },
    ]
}

/// Selects queries evenly over the catalogue, the same ones in each run.
fn spread(all: Vec<KnownItemQuery>) -> Vec<KnownItemQuery> {
    let step = (all.len() / QUERIES).max(1);
    all.into_iter().step_by(step).take(QUERIES).collect()
}

/// Groups the external ids of listings by a key.
fn group<'a>(listings: impl Iterator<Item = (String, &'a Listing)>) -> HashMap<String, BTreeSet<String>> {
    let mut groups: HashMap<String, BTreeSet<String>> = HashMap::new();
    for (key, listing) in listings {
        groups.entry(key).or_default().extend(listing.external_id.clone());
    }
    groups
}

/// Returns the SKU if it is a part number: letters and digits without a space, and part of the title.
fn part_number(listing: &Listing) -> Option<&str> {
    let number = listing.variants.first()?.sku.as_deref()?;
    let has = |kind: fn(&char) -> bool| number.chars().any(|character| kind(&character));
    let is_code = has(char::is_ascii_alphabetic) && has(char::is_ascii_digit) && !number.contains(' ');
    (is_code && listing.title.contains(number)).then_some(number)
}

/// Normalizes a part number: only letters and digits, in lower case.
fn code(number: &str) -> String {
    number.chars().filter(char::is_ascii_alphanumeric).map(|character| character.to_ascii_lowercase()).collect()
}

/// Returns the first words of the title, if it has enough.
fn beginning(listing: &Listing) -> Option<String> {
    let words: Vec<&str> = listing.title.split_whitespace().take(TITLE_WORDS).collect();
    (words.len() == TITLE_WORDS).then(|| words.join(" "))
}

/// Changes `16GB` to `16 GB`, or `16 GB` to `16GB`; `None` if the first words have neither.
fn with_a_unit_respaced(title: &str) -> Option<String> {
    let mut words: Vec<String> = title.split_whitespace().take(12).map(str::to_owned).collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    for at in 0..words.len() {
        if UNITS.contains(&words[at].as_str()) && at > 0 && is_number(&words[at - 1]) {
            let unit = words.remove(at);
            words[at - 1].push_str(&unit);
            return Some(words.join(" "));
        }
        let without_space =
            UNITS.iter().find_map(|unit| words[at].strip_suffix(unit).filter(|number| is_number(number)).zip(Some(*unit)));
        if let Some((number, unit)) = without_space {
            words[at] = format!("{number} {unit}");
            return Some(words.join(" "));
        }
    }
    None
}

/// Swaps two adjacent letters in the first word that has at least five; `None` if there is no such word.
fn misspelled(words: &str) -> Option<String> {
    let is_long = |word: &&str| word.len() >= 5 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let word = words.split(' ').find(is_long)?;
    let mut letters: Vec<char> = word.chars().collect();
    let at = (1..letters.len() - 1).find(|at| letters[*at] != letters[at + 1])?;
    letters.swap(at, at + 1);
    Some(words.replacen(word, &letters.into_iter().collect::<String>(), 1))
}
