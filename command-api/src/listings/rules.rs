//! The rules for each part of a listing. They collect faults instead of stopping at the first; what they return for a part
//! with a fault is never used.

use std::collections::BTreeSet;
use std::fmt::Display;

use events::listing::{self, Attribute, Location, Point, Status};
use events::stock::PIECES_LIMIT;
use events::{Currency, Money, VariantId};
use reqwest::Url;
use service::problem::{FAULTS_LIMIT, Fault};
use uuid::Uuid;

use super::draft::{AttributeDraft, ImageDraft, LocationDraft, PriceDraft, VariantDraft};

// Limits of the contract, in characters and items.
const TITLE: usize = 300;
const DESCRIPTION: usize = 20_000;
pub const ATTRIBUTES: usize = 200;
const ATTRIBUTE_NAME: usize = 100;
const ATTRIBUTE_VALUE: usize = 8_000;
pub const TAGS: usize = 30;
pub const IMAGES: usize = 20;
const IMAGE_URL: usize = 2_048;
pub const VARIANTS: usize = 200;

// Limits of ours: each is well above what real catalogues hold, and together they bound what a listing weighs.
const BRAND: usize = 100;
const CATEGORY: usize = 300;
const CATEGORY_LEVELS: usize = 10;
const TAG: usize = 50;
const SKU: usize = 100;
const LABEL: usize = 100;
const EXTERNAL_ID: usize = 255;
const PLACE: usize = 200;
const UNIT: usize = 20;
const ALT: usize = 300;
/// The longest tag that BCP 47 asks everyone to keep whole.
const LANGUAGE: usize = 35;

const REQUIRED: &str = "is required";

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn with(found: Vec<Fault>) -> Self {
        Self(found)
    }

    /// One more than is told shows that there are more.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() <= FAULTS_LIMIT {
            self.0.push(Fault::new(pointer, detail));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn all(self) -> Vec<Fault> {
        self.0
    }

    pub fn title(&mut self, title: Option<String>) -> String {
        let title = self.required("/title", title, TITLE);
        if !title.is_empty() && title.trim().is_empty() {
            self.add("/title", "must not be blank");
        }
        title
    }

    pub fn description(&mut self, description: Option<String>) -> String {
        let description = description.unwrap_or_default();
        self.text("/description", &description, 0, DESCRIPTION);
        description
    }

    pub fn category(&mut self, category: Option<String>) -> Option<String> {
        let category = self.optional("/category", category, CATEGORY)?;
        let levels: Vec<&str> = category.split('/').collect();
        if levels.len() > CATEGORY_LEVELS {
            self.add("/category", format!("must have at most {CATEGORY_LEVELS} levels"));
        }
        if !category.is_empty() && levels.iter().any(|level| level.trim().is_empty()) {
            self.add("/category", "must be a path such as electronics/audio, without empty levels");
        }
        Some(category)
    }

    pub fn brand(&mut self, brand: Option<String>) -> Option<String> {
        self.optional("/brand", brand, BRAND)
    }

    pub fn external_id(&mut self, id: Option<String>) -> Option<String> {
        self.optional("/external_id", id, EXTERNAL_ID)
    }

    /// The shape of BCP 47; whether such a language exists is not asked.
    pub fn language(&mut self, language: Option<String>) -> Option<String> {
        let language = language?;
        let mut subtags = language.split('-');
        let alone = |subtag: &str| (2..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphabetic());
        let more = |subtag: &str| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if language.len() > LANGUAGE || !subtags.next().is_some_and(alone) || !subtags.all(more) {
            self.add("/language", "must be a BCP 47 tag such as sr-Latn");
        }
        Some(language)
    }

    pub fn price(&mut self, pointer: &str, price: PriceDraft) -> Option<Money> {
        let currency = match price.currency.as_deref().map_or(Ok(Currency::DEFAULT), str::parse) {
            Ok(currency) => Some(currency),
            Err(error) => {
                self.add(format!("{pointer}/currency"), error.to_string());
                None
            }
        };
        let Some(amount) = price.amount else {
            self.add(if price.currency.is_some() { format!("{pointer}/amount") } else { pointer.to_owned() }, REQUIRED);
            return None;
        };
        match Money::parse(&amount, currency?) {
            Ok(money) => Some(money),
            Err(error) => {
                self.add(format!("{pointer}/amount"), error.to_string());
                None
            }
        }
    }

    /// A name of a fixed set.
    pub fn one_of<T: Copy + Display>(
        &mut self,
        pointer: &str,
        name: Option<String>,
        default: T,
        read: impl Fn(&str) -> Option<T>,
        all: &[T],
    ) -> T {
        let Some(name) = name else { return default };
        read(&name).unwrap_or_else(|| {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            self.add(pointer, format!("must be one of {}", names.join(", ")));
            default
        })
    }

    pub fn opening_status(&mut self, name: Option<&str>) -> Status {
        let statuses = [Status::Active, Status::Draft];
        let read = |name: &str| statuses.into_iter().find(|status| status.as_str() == name);
        self.one_of("/status", name.map(str::to_owned), Status::Active, read, &statuses)
    }

    pub fn opening_stock(&mut self, pieces: Option<i64>) -> i64 {
        let pieces = pieces.unwrap_or_default();
        if !(0..=PIECES_LIMIT).contains(&pieces) {
            self.add("/stock", format!("must be from 0 to {PIECES_LIMIT}"));
        }
        pieces
    }

    pub fn id(&mut self, pointer: &str, id: Option<&str>) -> Option<Uuid> {
        let read = Uuid::try_parse(id?).ok();
        if read.is_none() {
            self.add(pointer, "must be a UUID");
        }
        read
    }

    pub fn attributes(&mut self, attributes: Vec<AttributeDraft>) -> Vec<Attribute> {
        self.count("/attributes", attributes.len(), ATTRIBUTES);
        let read = |(at, attribute): (usize, AttributeDraft)| {
            let pointer = format!("/attributes/{at}");
            let value_at = format!("{pointer}/value");
            if attribute.value.is_none() {
                self.add(&value_at, REQUIRED);
            }
            let value = attribute.value.unwrap_or_default();
            self.text(&value_at, &value, 0, ATTRIBUTE_VALUE);
            Attribute {
                name: self.required(&format!("{pointer}/name"), attribute.name, ATTRIBUTE_NAME),
                value,
                unit: self.optional(&format!("{pointer}/unit"), attribute.unit, UNIT),
            }
        };
        attributes.into_iter().enumerate().map(read).collect()
    }

    pub fn tags(&mut self, tags: Vec<String>) -> Vec<String> {
        self.count("/tags", tags.len(), TAGS);
        for (at, tag) in tags.iter().enumerate() {
            self.text(&format!("/tags/{at}"), tag, 1, TAG);
        }
        tags
    }

    pub fn location(&mut self, location: LocationDraft) -> Option<Location> {
        if location.country.as_deref().is_some_and(|code| code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            self.add("/location/country", "must be two capital letters (ISO 3166-1) such as RS");
        }
        let point = location.point.map(|point| Point {
            lat: self.degrees("/location/point/lat", point.lat, 90.0),
            lon: self.degrees("/location/point/lon", point.lon, 180.0),
        });
        let location = Location {
            country: location.country,
            city: self.optional("/location/city", location.city, PLACE),
            address: self.optional("/location/address", location.address, PLACE),
            point,
        };
        // A place that says nothing is no place.
        let says_nothing = Location { country: None, city: None, address: None, point: None };
        (location != says_nothing).then_some(location)
    }

    fn degrees(&mut self, pointer: &str, degrees: Option<f64>, limit: f64) -> f64 {
        let Some(degrees) = degrees else {
            self.add(pointer, REQUIRED);
            return 0.0;
        };
        if !(-limit..=limit).contains(&degrees) {
            self.add(pointer, format!("must be from -{limit} to {limit}"));
        }
        listing::degrees(degrees)
    }

    pub fn images(&mut self, images: Vec<ImageDraft>) -> Vec<ImageLink> {
        self.count("/images", images.len(), IMAGES);
        let mut seen = BTreeSet::new();
        let read = |(at, image): (usize, ImageDraft)| {
            let pointer = format!("/images/{at}/url");
            let url = self.required(&pointer, image.url, IMAGE_URL);
            if !url.is_empty() && !is_web_address(&url) {
                self.add(&pointer, "must be an absolute http or https URL");
            }
            if !seen.insert(url.clone()) {
                self.add(&pointer, "is given twice");
            }
            ImageLink { url, alt: self.optional(&format!("/images/{at}/alt"), image.alt, ALT) }
        };
        images.into_iter().enumerate().map(read).collect()
    }

    pub fn variants(&mut self, variants: Vec<VariantDraft>) -> Vec<VariantSpec> {
        if variants.is_empty() {
            self.add("/variants", "must have at least one");
        }
        self.count("/variants", variants.len(), VARIANTS);
        let (mut ids, mut skus) = (BTreeSet::new(), BTreeSet::new());
        let read = |(at, variant): (usize, VariantDraft)| {
            let pointer = format!("/variants/{at}");
            let id = self.id(&format!("{pointer}/id"), variant.id.as_deref());
            if id.is_some_and(|id| !ids.insert(id)) {
                self.add(format!("{pointer}/id"), "is given twice");
            }
            if variant.sku.as_ref().is_some_and(|sku| !skus.insert(sku.clone())) {
                self.add(format!("{pointer}/sku"), "is given twice");
            }
            VariantSpec {
                id: id.map(VariantId),
                sku: self.optional(&format!("{pointer}/sku"), variant.sku, SKU),
                label: self.optional(&format!("{pointer}/label"), variant.label, LABEL),
                price: variant.price.and_then(|price| self.price(&format!("{pointer}/price"), price)),
            }
        };
        variants.into_iter().enumerate().map(read).collect()
    }

    fn required(&mut self, pointer: &str, text: Option<String>, most: usize) -> String {
        let Some(text) = text else {
            self.add(pointer, REQUIRED);
            return String::new();
        };
        self.text(pointer, &text, 1, most);
        text
    }

    fn optional(&mut self, pointer: &str, text: Option<String>, most: usize) -> Option<String> {
        let text = text?;
        self.text(pointer, &text, 1, most);
        Some(text)
    }

    fn text(&mut self, pointer: &str, text: &str, least: usize, most: usize) {
        if text.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\t') {
            self.add(pointer, "must have no control characters but newline and tab");
        }
        let length = text.chars().count();
        if length > most {
            self.add(pointer, format!("must have at most {most} characters"));
        } else if length < least {
            self.add(pointer, "must not be empty");
        }
    }

    fn count(&mut self, pointer: &str, count: usize, most: usize) {
        if count > most {
            self.add(pointer, format!("must have at most {most} items"));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLink {
    pub url: String,
    pub alt: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VariantSpec {
    pub id: Option<VariantId>,
    pub sku: Option<String>,
    pub label: Option<String>,
    pub price: Option<Money>,
}

/// Whether a listing could have this external id.
pub fn is_external_id(id: &str) -> bool {
    let mut faults = Faults::default();
    faults.external_id(Some(id.to_owned()));
    faults.is_empty()
}

fn is_web_address(url: &str) -> bool {
    // The parser passes over spaces and tabs that would be stored all the same.
    let clean = !url.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    // It also makes something of `http:a` and `http:///a`, which a browser reads otherwise.
    let names_host = url.split_once("://").is_some_and(|(_, rest)| !rest.starts_with(['/', '\\']));
    clean && names_host && Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::listings::content::Content;
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
