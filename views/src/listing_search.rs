//! `listing_search` answers: which listings match these words, filters, places and prices? Kept in OpenSearch.
//!
//! One document per listing: the listing as the API shows it, and a few fields derived from it. A document is written with
//! the aggregate's version as its external version, so an older event never replaces a newer one. A deleted listing leaves a
//! tombstone, because OpenSearch forgets the version of a deleted document after a minute.

mod analysis;
mod bulk;
mod document;
mod mapping;

pub use bulk::{put, put_tombstone};
pub use document::{document, listing_json, tombstone};
pub use mapping::{index_body, mapping_hash, template};

/// The projection's name: its durable consumer, its label in metrics, its row in `projection.generations`.
pub const NAME: &str = "listing_search";

/// The fields of a document that queries name. The rest of the mapping is reached through these.
pub mod field {
    /// Whether this is the tombstone of a deleted listing.
    pub const DELETED: &str = "deleted";
    pub const ID: &str = "id";
    pub const VERSION: &str = "version";
    pub const STATUS: &str = "status";
    pub const VISIBILITY: &str = "visibility";
    pub const SELLER: &str = "seller_id";
    pub const TITLE: &str = "title";
    pub const DESCRIPTION: &str = "description";
    /// The words of the brand; [`BRAND_WHOLE`] is the brand as one term.
    pub const BRAND: &str = "brand";
    pub const BRAND_WHOLE: &str = "brand.whole";
    /// Every level of the category: `electronics`, `electronics/audio`, …
    pub const CATEGORIES: &str = "categories";
    /// The product type: the last segment of the category, as one term.
    pub const TYPE: &str = "type.whole";
    pub const CONDITION: &str = "condition";
    pub const TAGS: &str = "tags";
    pub const AVAILABLE: &str = "available";
    pub const PRICE: &str = "price.amount";
    pub const CURRENCY: &str = "price.currency";
    pub const POINT: &str = "location.point";
    pub const CREATED_AT: &str = "created_at";
    /// The primary subtag of the listing's language: `sr` for `sr-Latn`.
    pub const LANGUAGE: &str = "language";
    /// The nested objects; a name is lower-cased by the index, for queries too.
    pub const ATTRIBUTES: &str = "attributes";
    pub const ATTRIBUTE_NAME: &str = "attributes.name";
    pub const ATTRIBUTE_VALUE: &str = "attributes.value";
    /// All words of a listing, including attribute values.
    pub const ALL: &str = "all";
    /// Two neighbouring words glued together: `power bank` as `powerbank`.
    pub const ALL_PAIRS: &str = "all.pairs";
    /// Part numbers and measures, without their punctuation: `TN-2110` as `tn2110`.
    pub const ALL_CODES: &str = "all.codes";
    pub const ALL_SERBIAN: &str = "all.serbian";
    pub const ALL_RUSSIAN: &str = "all.russian";
    pub const TITLE_SERBIAN: &str = "title.serbian";
    pub const TITLE_RUSSIAN: &str = "title.russian";
    pub const DESCRIPTION_SERBIAN: &str = "description.serbian";
    pub const DESCRIPTION_RUSSIAN: &str = "description.russian";
}

/// Names of the analyzers that queries name.
pub mod analyzer {
    pub const WORDS: &str = "words";
    pub const PAIRS: &str = "pairs";
    pub const CODES: &str = "codes";
    pub const SERBIAN: &str = "serbian_words";
    pub const RUSSIAN: &str = "russian_words";
    pub const WHOLE: &str = "whole";
}

/// The index that holds one generation: `listings-1`. Writers name it; readers use the alias.
#[must_use]
pub fn index(alias: &str, generation: u32) -> String {
    format!("{alias}-{generation}")
}
