//! The content of a listing that keeps all rules. Every broken rule is reported, each with its JSON pointer.

use events::listing::{Attribute, Condition, Location, Status, Visibility};
use events::{Money, UserId};
use service::problem::Fault;

use super::draft::ListingDraft;
use super::offer::{self, VariantSpec};
use super::place::{self, ImageLink};
use super::words;
use crate::validation::{Faults, one_of, price, uuid};

/// What a seller can change by replacing a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub title: String,
    pub description: String,
    pub category: Option<String>,
    pub price: Money,
    pub condition: Condition,
    pub visibility: Visibility,
    pub brand: Option<String>,
    pub language: Option<String>,
    pub attributes: Vec<Attribute>,
    pub tags: Vec<String>,
    pub location: Option<Location>,
    pub images: Vec<ImageLink>,
    /// `None` keeps the variants; a new listing then gets a plain one.
    pub variants: Option<Vec<VariantSpec>>,
    pub external_id: Option<String>,
}

/// What a seller can set only when creating a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub status: Status,
    /// Pieces of its only variant.
    pub stock: i64,
    /// The seller that the draft names.
    pub seller: Option<UserId>,
}

impl Content {
    /// Judges a draft that replaces a listing, together with the faults that reading it found. What the server sets is ignored, the
    /// seller included.
    pub fn judge(draft: ListingDraft, found: Vec<Fault>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::from(found);
        if draft.stock.is_some() {
            faults.add("/stock", "is set through the variant's own stock");
        }
        Self::read(draft, faults)
    }

    /// Judges a draft of a new listing, together with the faults that reading it found.
    pub fn judge_new(draft: ListingDraft, found: Vec<Fault>) -> Result<(Self, Opening), Vec<Fault>> {
        let mut faults = Faults::from(found);
        for (at, variant) in draft.variants.iter().flatten().enumerate() {
            if variant.id.is_some() {
                faults.add(format!("/variants/{at}/id"), "is set by the server");
            }
        }
        if draft.stock.is_some() && draft.variants.as_ref().is_some_and(|variants| variants.len() > 1) {
            faults.add("/stock", "can only be given for a listing with one variant");
        }
        let opening = Opening {
            status: offer::first_status(&mut faults, draft.status.as_deref()),
            stock: offer::first_stock(&mut faults, draft.stock),
            seller: uuid(&mut faults, "/seller_id", draft.seller_id.as_deref()).map(UserId),
        };
        Ok((Self::read(draft, faults)?, opening))
    }

    /// Runs every validator before it refuses anything.
    fn read(draft: ListingDraft, mut found: Faults) -> Result<Self, Vec<Fault>> {
        let faults = &mut found;
        let (condition, visibility) = (draft.condition.as_deref(), draft.visibility.as_deref());
        let title = words::title(faults, draft.title);
        let description = words::description(faults, draft.description);
        let category = words::category(faults, draft.category);
        let price = price(faults, "/price", draft.price.unwrap_or_default());
        let condition = one_of(faults, "/condition", condition, Condition::New, Condition::ALL, Condition::as_str);
        let visibility = one_of(faults, "/visibility", visibility, Visibility::Public, Visibility::ALL, Visibility::as_str);
        let brand = words::brand(faults, draft.brand);
        let language = words::language(faults, draft.language);
        let attributes = words::attributes(faults, draft.attributes.unwrap_or_default());
        let tags = words::tags(faults, draft.tags.unwrap_or_default());
        let location = draft.location.and_then(|location| place::location(faults, location));
        let images = place::images(faults, draft.images.unwrap_or_default());
        let variants = draft.variants.map(|variants| offer::variants(faults, variants));
        let external_id = words::external_id(faults, draft.external_id);

        match price {
            Some(price) if found.is_empty() => Ok(Self {
                title,
                description,
                category,
                price,
                condition,
                visibility,
                brand,
                language,
                attributes,
                tags,
                location,
                images,
                variants,
                external_id,
            }),
            Some(_) | None => Err(found.into_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::listings::tests::{draft, pointers};

    fn faults_of(body: &Value) -> Vec<String> {
        let (draft, unknown) = draft(body);
        let faults = Content::judge_new(draft, unknown).err().unwrap_or_default();
        pointers(&faults).into_iter().map(str::to_owned).collect()
    }

    /// The faults of a good listing with one member changed.
    fn with(name: &str, value: &Value) -> Vec<String> {
        let mut body = json!({ "title": "t", "price": { "amount": "1" } });
        body[name] = value.clone();
        faults_of(&body)
    }

    #[test]
    fn title_and_price_are_all_that_is_needed() {
        assert_eq!(faults_of(&json!({ "title": "t", "price": { "amount": "0" } })), [""; 0]);
        assert_eq!(faults_of(&json!({})), ["/title", "/price"]);
        assert_eq!(faults_of(&json!({ "title": null, "price": { "currency": "EUR" } })), ["/title", "/price/amount"]);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let body = json!({
            "title": "", "price": { "amount": "1,5", "currency": "EUR" }, "condition": "broken", "visibility": "secret",
            "language": "x", "category": "a//b", "tags": ["", "ok"], "attributes": [{ "name": "a" }], "images": [{ "url": "/1.jpg" }],
            "location": { "country": "rs", "point": { "lat": 91, "lon": 0 } }, "variants": [{ "id": "7" }], "stock": -1,
            "status": "sold", "seller_id": "me", "external_id": "",
        });
        let mut told = faults_of(&body);
        told.sort_unstable();
        assert_eq!(
            told,
            [
                "/attributes/0/value",
                "/category",
                "/condition",
                "/external_id",
                "/images/0/url",
                "/language",
                "/location/country",
                "/location/point/lat",
                "/price/amount",
                "/seller_id",
                "/status",
                "/stock",
                "/tags/0",
                "/title",
                "/variants/0/id",
                "/variants/0/id",
                "/visibility",
            ]
        );
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert_eq!(with("title", &json!("ш".repeat(300))), [""; 0]);
        assert_eq!(with("title", &json!("ш".repeat(301))), ["/title"]);
        assert_eq!(with("description", &json!("d".repeat(20_001))), ["/description"]);
        assert_eq!(with("tags", &json!(vec!["t"; 31])), ["/tags"]);
        assert_eq!(with("variants", &json!([])), ["/variants"]);
        assert_eq!(with("title", &json!(" \n\t")), ["/title"]);
    }

    #[test]
    fn control_characters_are_refused_but_newline_and_tab() {
        assert_eq!(with("description", &json!("a\nb\tc")), [""; 0]);
        for bad in ["\u{0}", "\r", "\u{1b}", "\u{7f}", "\u{85}"] {
            assert_eq!(with("description", &json!(bad)), ["/description"], "{bad:?}");
            assert_eq!(with("tags", &json!([bad])), ["/tags/0"], "{bad:?}");
            assert_eq!(with("attributes", &json!([{ "name": bad, "value": bad, "unit": bad }])).len(), 3, "{bad:?}");
            assert_eq!(with("external_id", &json!(bad)), ["/external_id"], "{bad:?}");
            assert_eq!(with("location", &json!({ "city": bad, "address": bad })).len(), 2, "{bad:?}");
            assert_eq!(with("variants", &json!([{ "sku": bad, "label": bad }])).len(), 2, "{bad:?}");
        }
    }

    #[test]
    fn a_path_has_no_empty_levels_and_at_most_ten() {
        assert_eq!(with("category", &json!("a/b/c")), [""; 0]);
        for bad in ["/a", "a/", "a//b", "a/ /b", "", "/", "1/2/3/4/5/6/7/8/9/10/11"] {
            assert_eq!(with("category", &json!(bad)), ["/category"], "{bad:?}");
        }
    }

    #[test]
    fn languages_have_the_shape_of_bcp_47() {
        for good in ["en", "sr-Latn", "zh-Hant-TW", "de-1996"] {
            assert_eq!(with("language", &json!(good)), [""; 0], "{good:?}");
        }
        for bad in ["", "e", "en_US", "en-", "-en", "1en", "en-toolongsubtag", "ен"] {
            assert_eq!(with("language", &json!(bad)), ["/language"], "{bad:?}");
        }
    }

    #[test]
    fn pictures_have_absolute_web_addresses_given_once() {
        assert_eq!(with("images", &json!([{ "url": "https://example.com/a b" }])), ["/images/0/url"]);
        for bad in [
            "1.jpg",
            "//example.com/1.jpg",
            "ftp://example.com/1.jpg",
            "javascript:alert(1)",
            "http://",
            "http:a",
            "http:///a",
            "http:\\\\a\\b",
        ] {
            assert_eq!(with("images", &json!([{ "url": bad }])), ["/images/0/url"], "{bad:?}");
        }
        assert_eq!(with("images", &json!([{ "url": "http://a.b/1" }, { "url": "http://a.b/1" }])), ["/images/1/url"]);
        assert_eq!(with("images", &json!([{ "url": format!("http://a.b/{}", "x".repeat(2_048)) }])), ["/images/0/url"]);
    }

    #[test]
    fn numbers_stay_in_their_bounds() {
        assert_eq!(with("stock", &json!(1_000_000_001)), ["/stock"]);
        assert_eq!(with("location", &json!({ "point": { "lat": -90, "lon": 180 } })), [""; 0]);
        assert_eq!(with("location", &json!({ "point": { "lat": 0, "lon": -180.1 } })), ["/location/point/lon"]);
        assert_eq!(with("location", &json!({ "point": { "lat": 0 } })), ["/location/point/lon"]);
    }

    #[test]
    fn stock_needs_a_single_variant_and_skus_are_not_repeated() {
        let mut body = json!({ "title": "t", "price": { "amount": "1" }, "stock": 1, "variants": [{ "sku": "a" }] });
        assert_eq!(faults_of(&body), [""; 0]);
        body["variants"] = json!([{ "sku": "a" }, { "sku": "a" }]);
        assert_eq!(faults_of(&body), ["/stock", "/variants/1/sku"]);
    }
}
