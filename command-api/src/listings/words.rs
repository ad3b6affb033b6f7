//! Validators of the words of a listing: title, description, category, brand, language, attributes, tags, external id.

use events::listing::Attribute;

use super::draft::{ATTRIBUTES, AttributeDraft, TAGS};
use crate::validation::{Faults, REQUIRED, count, optional, required, text};

// Limits in characters. Title, description and attributes are limits of the contract; the others are well above what real
// catalogues have. Together they limit the size of a listing.
const TITLE: usize = 300;
const DESCRIPTION: usize = 20_000;
const CATEGORY: usize = 300;
const CATEGORY_LEVELS: usize = 10;
const BRAND: usize = 100;
const EXTERNAL_ID: usize = 255;
/// The longest tag that BCP 47 requires every program to keep whole.
const LANGUAGE: usize = 35;
const ATTRIBUTE_NAME: usize = 100;
const ATTRIBUTE_VALUE: usize = 8_000;
const UNIT: usize = 20;
const TAG: usize = 50;

pub fn title(faults: &mut Faults, title: Option<String>) -> String {
    let title = required(faults, "/title", title, TITLE);
    if !title.is_empty() && title.trim().is_empty() {
        faults.add("/title", "must not be blank");
    }
    title
}

pub fn description(faults: &mut Faults, description: Option<String>) -> String {
    let description = description.unwrap_or_default();
    text(faults, "/description", &description, 0, DESCRIPTION);
    description
}

pub fn category(faults: &mut Faults, category: Option<String>) -> Option<String> {
    let category = optional(faults, "/category", category, CATEGORY)?;
    let levels: Vec<&str> = category.split('/').collect();
    if levels.len() > CATEGORY_LEVELS {
        faults.add("/category", format!("must have at most {CATEGORY_LEVELS} levels"));
    }
    if !category.is_empty() && levels.iter().any(|level| level.trim().is_empty()) {
        faults.add("/category", "must be a path such as electronics/audio, without empty levels");
    }
    Some(category)
}

pub fn brand(faults: &mut Faults, brand: Option<String>) -> Option<String> {
    optional(faults, "/brand", brand, BRAND)
}

pub fn external_id(faults: &mut Faults, id: Option<String>) -> Option<String> {
    optional(faults, "/external_id", id, EXTERNAL_ID)
}

/// Whether a listing could have this external id.
pub fn is_external_id(id: &str) -> bool {
    let mut faults = Faults::default();
    text(&mut faults, "", id, 1, EXTERNAL_ID);
    faults.is_empty()
}

/// The syntax of BCP 47. Whether such a language exists is not checked.
pub fn language(faults: &mut Faults, language: Option<String>) -> Option<String> {
    let language = language?;
    let mut subtags = language.split('-');
    let first = |subtag: &str| (2..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphabetic());
    let later = |subtag: &str| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if language.len() > LANGUAGE || !subtags.next().is_some_and(first) || !subtags.all(later) {
        faults.add("/language", "must be a BCP 47 tag such as sr-Latn");
    }
    Some(language)
}

pub fn attributes(faults: &mut Faults, attributes: Vec<AttributeDraft>) -> Vec<Attribute> {
    count(faults, "/attributes", attributes.len(), ATTRIBUTES);
    let read = |(at, attribute): (usize, AttributeDraft)| {
        let pointer = format!("/attributes/{at}");
        let value_at = format!("{pointer}/value");
        if attribute.value.is_none() {
            faults.add(&value_at, REQUIRED);
        }
        let value = attribute.value.unwrap_or_default();
        text(faults, &value_at, &value, 0, ATTRIBUTE_VALUE);
        Attribute {
            name: required(faults, &format!("{pointer}/name"), attribute.name, ATTRIBUTE_NAME),
            value,
            unit: optional(faults, &format!("{pointer}/unit"), attribute.unit, UNIT),
        }
    };
    attributes.into_iter().enumerate().map(read).collect()
}

pub fn tags(faults: &mut Faults, tags: Vec<String>) -> Vec<String> {
    count(faults, "/tags", tags.len(), TAGS);
    for (at, tag) in tags.iter().enumerate() {
        text(faults, &format!("/tags/{at}"), tag, 1, TAG);
    }
    tags
}
