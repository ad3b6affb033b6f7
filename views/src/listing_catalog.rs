//! `listing_catalog` answers: which listings does a seller have, drafts too? And it answers searches while OpenSearch is
//! unavailable. Stored in Postgres, `projection.listings`.
//!
//! Every listing that a command accepted fits: values that go into an index or a tsvector are truncated here, because Postgres
//! rejects the whole row (SQLSTATE 54000) for one long value, and the event would be poison.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use events::listing::degrees;
use events::{Listing, ListingId};
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

/// The projection's name.
pub const NAME: &str = "listing_catalog";
/// A btree entry holds about 2.7 kB; a title of 300 characters always fits.
const INDEXED_TITLE_MAX: usize = 2_000;
/// Longest category, tag or attribute value that can be filtered by, in characters. Longer ones are only shown. The search index has
/// the same limit.
pub const FILTERABLE_MAX: usize = 512;
/// In bytes. A tsvector holds 1 MiB, and hyphens, addresses and positions make it up to four times as long as the text.
const KEYWORDS_MAX: usize = 96 * 1024;
/// Holds every description of 20 000 characters in any script after folding, in bytes.
const DESCRIPTION_MAX: usize = 96 * 1024;

/// A row of `projection.listings`. A deleted listing leaves a tombstone (all other columns null), so that an older event cannot
/// bring it back.
#[derive(Debug, Clone, PartialEq)]
pub struct ListingCatalogRow {
    pub id: Uuid,
    pub version: i64,
    pub deleted: bool,
    pub seller_id: Option<Uuid>,
    pub status: Option<&'static str>,
    pub visibility: Option<&'static str>,
    pub title: Option<String>,
    /// Every level of the category: electronics, electronics/audio, …
    pub categories: Option<Vec<String>>,
    pub brand: Option<String>,
    pub condition: Option<&'static str>,
    pub tags: Option<Vec<String>>,
    /// Name in lower case → values, to be asked with `@>`.
    pub attributes: Option<Value>,
    pub price: Option<Decimal>,
    pub currency: Option<&'static str>,
    pub available: Option<bool>,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub created_at: Option<DateTime<Utc>>,
    /// The text to search in, folded.
    pub search: Option<SearchText>,
    /// The listing as the API shows it, as JSON text.
    pub listing: Option<String>,
}

/// Folded text for `to_tsvector('simple', …)`, with weights A, B and D in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchText {
    pub title: String,
    /// Brand, category, tags and attribute values.
    pub keywords: String,
    pub description: String,
}

impl ListingCatalogRow {
    /// The row of a listing that exists.
    ///
    /// # Errors
    /// Never for a listing that was decoded from an event.
    pub fn of(listing: &Listing) -> Result<Self, serde_json::Error> {
        let point = listing.location.as_ref().and_then(|location| location.point);
        Ok(Self {
            id: listing.id.into(),
            version: listing.version.cast_signed(),
            deleted: false,
            seller_id: Some(listing.seller_id.into()),
            status: Some(listing.status.as_str()),
            visibility: Some(listing.visibility.as_str()),
            title: Some(cut(&listing.title, INDEXED_TITLE_MAX).to_owned()),
            categories: Some(listing.category.iter().flat_map(|path| category_levels(path)).map(str::to_owned).collect()),
            brand: listing.brand.clone(),
            condition: Some(listing.condition.as_str()),
            tags: Some(listing.tags.iter().filter(|tag| is_filterable(tag)).cloned().collect()),
            attributes: Some(attributes(listing)),
            price: Some(listing.price.amount()),
            currency: Some(listing.price.currency().code()),
            available: Some(listing.available),
            lat: point.map(|point| degrees(point.lat)),
            lon: point.map(|point| degrees(point.lon)),
            created_at: Some(listing.created_at.into()),
            search: Some(SearchText::of(listing)),
            listing: Some(serde_json::to_string(listing)?),
        })
    }

    /// The row of a deleted listing.
    #[must_use]
    pub fn tombstone(id: ListingId, version: u64) -> Self {
        Self {
            id: id.into(),
            version: version.cast_signed(),
            deleted: true,
            seller_id: None,
            status: None,
            visibility: None,
            title: None,
            categories: None,
            brand: None,
            condition: None,
            tags: None,
            attributes: None,
            price: None,
            currency: None,
            available: None,
            lat: None,
            lon: None,
            created_at: None,
            search: None,
            listing: None,
        }
    }
}

impl SearchText {
    fn of(listing: &Listing) -> Self {
        // With slashes the parser would take the category as one word.
        let category = listing.category.as_ref().map(|path| path.replace('/', " "));
        let keywords = listing
            .brand
            .iter()
            .chain(&category)
            .chain(&listing.tags)
            .chain(listing.attributes.iter().map(|attribute| &attribute.value));
        let mut folded = String::new();
        for keyword in keywords {
            if folded.len() >= KEYWORDS_MAX {
                break;
            }
            folded.push_str(&fold(keyword));
            folded.push(' ');
        }
        folded.truncate(cut(&folded, KEYWORDS_MAX).len());
        Self {
            title: cut(&fold(&listing.title), INDEXED_TITLE_MAX).to_owned(),
            keywords: folded,
            description: cut(&fold(&listing.description), DESCRIPTION_MAX).to_owned(),
        }
    }
}

/// Whether a value can be filtered by.
#[must_use]
pub fn is_filterable(value: &str) -> bool {
    value.chars().nth(FILTERABLE_MAX).is_none()
}

/// Every level of a category path that can be filtered by, the shortest first: `a/b/c` is in `a`, `a/b` and `a/b/c`. The search
/// index uses it too.
pub fn category_levels(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|level| !level.is_empty() && is_filterable(level))
}

/// An attribute's name as it is stored and filtered by: each character in lower case, as the search index does it. `str::to_lowercase`
/// differs: it depends on neighbouring characters (`ΣΑΣ` has two different sigmas), and turns `İ` into two characters.
#[must_use]
pub fn attribute_name(name: &str) -> String {
    name.chars().filter_map(|letter| letter.to_lowercase().next()).collect()
}

fn attributes(listing: &Listing) -> Value {
    let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for attribute in listing.attributes.iter().filter(|attribute| is_filterable(&attribute.value)) {
        by_name.entry(attribute_name(&attribute.name)).or_default().push(&attribute.value);
    }
    by_name.into_iter().collect()
}

/// Folds text so that different spellings of a word match: lower case, without accents, Cyrillic as Latin (љубав, ljubav). Stored
/// text and queries are folded by this same function.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        match character {
            'a'..='z' | '0'..='9' | ' ' => folded.push(character),
            // Combining accents, after a letter that carries them.
            '\u{300}'..='\u{36f}' => {}
            _ => match folded_letter(character) {
                Some(letters) => folded.push_str(letters),
                None => folded.push(character),
            },
        }
    }
    folded
}

/// Latin letters with accents lose them; Cyrillic follows the Serbian way (`ђ → dj`, `dž → dz`), extended to Russian.
fn folded_letter(letter: char) -> Option<&'static str> {
    Some(match letter {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' | 'а' => "a",
        'б' => "b",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' | 'ц' | 'ч' | 'ћ' => "c",
        'ď' | 'д' => "d",
        'đ' | 'ђ' => "dj",
        'џ' => "dz",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'е' | 'ё' | 'э' | 'є' => "e",
        'ф' => "f",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' | 'г' | 'ґ' => "g",
        'ĥ' | 'ħ' | 'х' => "h",
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'į' | 'ı' | 'и' | 'і' | 'ї' => "i",
        'ј' | 'й' => "j",
        'ķ' | 'к' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' | 'л' => "l",
        'љ' => "lj",
        'м' => "m",
        'ñ' | 'ń' | 'ņ' | 'ň' | 'н' => "n",
        'њ' => "nj",
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'о' => "o",
        'п' => "p",
        'ŕ' | 'ř' | 'р' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' | 'с' | 'ш' => "s",
        'щ' => "sc",
        'ß' => "ss",
        'ţ' | 'ť' | 'ț' | 'т' => "t",
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' | 'у' => "u",
        'в' => "v",
        'ý' | 'ÿ' | 'ы' => "y",
        'ź' | 'ż' | 'ž' | 'з' | 'ж' => "z",
        'ю' => "ju",
        'я' => "ja",
        'æ' => "ae",
        'œ' => "oe",
        'ъ' | 'ь' => "",
        _ => return None,
    })
}

/// The longest beginning of at most `bytes` bytes that ends at a character.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_scripts_and_bald_letters_meet() {
        for (left, right) in
            [("Љубав", "ljubav"), ("šešir", "sesir"), ("Шешир", "sesir"), ("Ђорђе", "Đorđe"), ("Café", "cafe\u{301}")]
        {
            assert_eq!(fold(left), fold(right));
        }
        assert_eq!(fold("Ђорђе"), "djordje");
        assert_eq!(fold("Ноутбук Объявление"), "noutbuk objavlenie");
        assert_eq!(fold("TN-2110 日本"), "tn-2110 日本");
    }

    #[test]
    fn a_category_stands_for_each_of_its_levels() {
        let levels = |path| category_levels(path).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(levels("electronics/audio/headphones"), ["electronics", "electronics/audio", "electronics/audio/headphones"]);
        assert_eq!(levels("a"), ["a"]);
        assert!(levels("").is_empty());
        let long = "x".repeat(FILTERABLE_MAX);
        assert_eq!(levels(&format!("a/{long}")), ["a"], "a level that cannot be filtered by is left out");
    }

    #[test]
    fn what_is_cut_ends_at_a_character() {
        assert_eq!(cut("љљљ", 3), "љ");
        assert_eq!(cut("abc", 10), "abc");
        assert!(is_filterable(&"љ".repeat(FILTERABLE_MAX)) && !is_filterable(&"љ".repeat(FILTERABLE_MAX + 1)));
    }
}
