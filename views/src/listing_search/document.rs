//! The document of one listing: encoding it, and reading the listing out of it.

use std::borrow::Cow;

use events::{Listing, ListingId};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::listing_catalog::category_levels;

/// The document. The derived fields come first, then the listing's own beginning with `id`: [`listing_json`] cuts between them.
#[derive(Serialize)]
struct SearchDocument<'a> {
    deleted: bool,
    categories: Vec<&'a str>,
    #[serde(rename = "type")]
    product_type: Option<&'a str>,
    #[serde(flatten)]
    listing: &'a Listing,
}

/// The document of a deleted listing.
#[derive(Serialize)]
struct Tombstone {
    deleted: bool,
    id: ListingId,
    version: u64,
}

/// Names of the fields that are not the listing's own.
const DERIVED: [&str; 3] = ["deleted", "categories", "type"];
/// The beginning of the listing. Quotes inside a JSON string are escaped, so no value can contain it.
const LISTING_BEGINS: &str = r#","id":""#;

/// The document of a listing.
///
/// # Errors
/// Never: a listing's keys are strings and its numbers finite.
pub fn document(listing: &Listing) -> Result<Vec<u8>, serde_json::Error> {
    let category = listing.category.as_deref();
    serde_json::to_vec(&SearchDocument {
        deleted: false,
        categories: category.into_iter().flat_map(category_levels).collect(),
        product_type: category.and_then(|path| path.rsplit('/').next()),
        listing,
    })
}

/// The document of a deleted listing, which keeps an older event from bringing it back.
///
/// # Errors
/// Never: it has three plain fields.
pub fn tombstone(id: ListingId, version: u64) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Tombstone { deleted: true, id, version })
}

/// The listing in a document's `_source`, as the API shows it. A document that [`document`] wrote is not parsed.
///
/// # Errors
/// When the source is no JSON object.
pub fn listing_json(source: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let text = source.get();
    if let Some(begin) = text.find(LISTING_BEGINS).filter(|_| text.starts_with(r#"{"deleted":"#)) {
        return Ok(Cow::Owned(format!("{{{}", &text[begin + 1..])));
    }
    // Not written by `document`: slower, but the same listing.
    let mut document: serde_json::Map<String, Value> = serde_json::from_str(text)?;
    for name in DERIVED {
        document.remove(name);
    }
    serde_json::to_string(&document).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use events::{Currency, Money, Timestamp, UserId};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn a_listing() -> Listing {
        let moment: Timestamp = "2026-11-21T09:30:00.5Z".parse().unwrap();
        serde_json::from_value(json!({
            "id": Uuid::nil(), "version": 3, "status": "active", "visibility": "public", "seller_id": UserId(Uuid::max()),
            "title": r#"tricky ,"id":" title"#, "description": "", "category": r#"a/,"id":"b/c"#,
            "price": Money::parse("129.90", Currency::DEFAULT).unwrap(), "condition": "new", "brand": null, "language": "sr-Latn",
            "attributes": [{"name": "Color", "value": "black"}], "tags": [], "location": null, "images": [], "variants": [],
            "available": true, "external_id": null, "created_at": moment, "updated_at": moment, "published_at": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_document_reads_back_as_its_listing() {
        let listing = a_listing();
        let bytes = document(&listing).unwrap();
        assert_eq!(serde_json::from_slice::<Listing>(&bytes).unwrap(), listing);

        let source = RawValue::from_string(String::from_utf8(bytes).unwrap()).unwrap();
        assert_eq!(listing_json(&source).unwrap(), serde_json::to_string(&listing).unwrap());
    }

    #[test]
    fn a_document_that_was_written_in_another_order_reads_back_too() {
        let listing = a_listing();
        let mut other = serde_json::to_value(&listing).unwrap();
        other["deleted"] = json!(false);
        other["type"] = json!("c");
        let source = RawValue::from_string(other.to_string()).unwrap();
        assert_eq!(serde_json::from_str::<Listing>(&listing_json(&source).unwrap()).unwrap(), listing);
        let text = listing_json(&source).unwrap();
        assert!(!text.contains("\"deleted\"") && !text.contains("\"type\""), "{text}");
    }

    #[test]
    fn a_tombstone_says_what_it_buries() {
        let bytes = tombstone(ListingId(Uuid::nil()), 7).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), json!({"deleted": true, "id": Uuid::nil(), "version": 7}));
    }
}
