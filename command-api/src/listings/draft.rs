//! A listing as clients send it. Any member may be missing or wrong; [`super::content`] judges it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use service::problem::Fault;
use utoipa::ToSchema;

use crate::validation::PriceDraft;

// Limits of the contract, in items. A list is read no further than its limit.
pub const ATTRIBUTES: usize = 200;
pub const TAGS: usize = 30;
pub const IMAGES: usize = 20;
pub const VARIANTS: usize = 200;

/// A listing, new or in place of an old one. Texts may have no control characters but newline and tab.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ListingDraft {
    #[schema(required, nullable = false, min_length = 1, max_length = 300, example = "Headphones, nearly new")]
    pub title: Option<String>,
    #[schema(max_length = 20_000)]
    pub description: Option<String>,
    /// At most 10 levels.
    #[schema(max_length = 300, example = "electronics/audio/headphones")]
    pub category: Option<String>,
    #[schema(required, nullable = false)]
    pub price: Option<PriceDraft>,
    /// `new` (default), `used` or `refurbished`.
    #[schema(value_type = Option<events::listing::Condition>)]
    pub condition: Option<String>,
    /// `public` (default), `unlisted` or `private`.
    #[schema(value_type = Option<events::listing::Visibility>)]
    pub visibility: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    pub brand: Option<String>,
    /// A BCP 47 tag.
    #[schema(max_length = 35, example = "sr-Latn")]
    pub language: Option<String>,
    #[serde(default, deserialize_with = "list::<ATTRIBUTES, _, _>")]
    #[schema(max_items = 200)]
    pub attributes: Option<Vec<AttributeDraft>>,
    /// Each of 1 to 50 characters.
    #[serde(default, deserialize_with = "list::<TAGS, _, _>")]
    #[schema(max_items = 30)]
    pub tags: Option<Vec<String>>,
    pub location: Option<LocationDraft>,
    /// Their order is their position; the first is the primary one.
    #[serde(default, deserialize_with = "list::<IMAGES, _, _>")]
    #[schema(max_items = 20)]
    pub images: Option<Vec<ImageDraft>>,
    /// A create without any gets one. When replacing: absent keeps them as they are; a given one matches by `id`, else by
    /// `sku`, and one that is not given is removed.
    #[serde(default, deserialize_with = "list::<VARIANTS, _, _>")]
    #[schema(min_items = 1, max_items = 200)]
    pub variants: Option<Vec<VariantDraft>>,
    /// The seller's own name for it, unique among the seller's listings.
    #[schema(min_length = 1, max_length = 255)]
    pub external_id: Option<String>,
    /// Only when creating: `active` (default) or `draft`.
    #[schema(example = "active")]
    pub status: Option<String>,
    /// Only when creating: pieces of its only variant.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub stock: Option<i64>,
    /// Only when creating, by an admin: whose it is.
    #[schema(format = "uuid")]
    pub seller_id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct AttributeDraft {
    #[schema(required, nullable = false, min_length = 1, max_length = 100, example = "weight")]
    pub name: Option<String>,
    #[schema(required, nullable = false, max_length = 8_000, example = "250")]
    pub value: Option<String>,
    #[schema(min_length = 1, max_length = 20, example = "g")]
    pub unit: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct LocationDraft {
    /// ISO 3166-1 alpha-2.
    #[schema(pattern = "^[A-Z]{2}$", example = "RS")]
    pub country: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    pub city: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    pub address: Option<String>,
    pub point: Option<PointDraft>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct PointDraft {
    #[schema(required, nullable = false, minimum = -90, maximum = 90)]
    pub lat: Option<f64>,
    #[schema(required, nullable = false, minimum = -180, maximum = 180)]
    pub lon: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ImageDraft {
    /// An absolute http or https URL. It is stored and shown as it is, and never fetched.
    #[schema(required, nullable = false, max_length = 2_048, example = "https://example.com/1.jpg")]
    pub url: Option<String>,
    #[schema(min_length = 1, max_length = 300)]
    pub alt: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct VariantDraft {
    /// Only when replacing: which variant of the listing this is.
    #[schema(format = "uuid")]
    pub id: Option<String>,
    /// Unique within the listing.
    #[schema(min_length = 1, max_length = 100)]
    pub sku: Option<String>,
    #[schema(min_length = 1, max_length = 100, example = "42")]
    pub label: Option<String>,
    /// Overrides the listing's price.
    pub price: Option<PriceDraft>,
}

/// Reads a list up to its limit and one item more, which shows that it is too long. A body can consist of empty items, and each
/// takes many times the memory that it takes in the body.
fn list<'de, const MOST: usize, T, D>(list: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<BoundedList<T, MOST>>::deserialize(list)?.map(|BoundedList(items)| items))
}

struct BoundedList<T, const MOST: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for BoundedList<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        list.deserialize_seq(Items::<T, MOST>(PhantomData)).map(Self)
    }
}

struct Items<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
            if items.len() > MOST {
                while list.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(items)
    }
}

/// Members that only the server sets. A listing that was read has them, so a `PUT` may send them back.
const OF_LISTINGS: [&str; 6] = ["id", "version", "available", "created_at", "updated_at", "published_at"];
const OF_VARIANTS: [&str; 1] = ["available"];
const OF_IMAGES: [&str; 6] = ["id", "content_type", "width", "height", "position", "primary"];

/// Whether a pointer names a member that only the server sets.
fn is_server_owned(pointer: &str) -> bool {
    let mut path = pointer.trim_start_matches('/').split('/');
    match (path.next(), path.next(), path.next(), path.next()) {
        (Some(member), None, ..) => OF_LISTINGS.contains(&member),
        (Some("variants"), Some(_), Some(member), None) => OF_VARIANTS.contains(&member),
        (Some("images"), Some(_), Some(member), None) => OF_IMAGES.contains(&member),
        _ => false,
    }
}

/// The faults of unknown members where a client may send what the server sets (`PUT`): those members are ignored.
pub fn ignoring_server_owned(mut unknown: Vec<Fault>) -> Vec<Fault> {
    unknown.retain(|fault| !is_server_owned(&fault.pointer));
    unknown
}

/// The faults of unknown members where a client must not send what the server sets (`POST`, `PATCH`).
pub fn refusing_server_owned(mut unknown: Vec<Fault>) -> Vec<Fault> {
    for fault in unknown.iter_mut().filter(|fault| is_server_owned(&fault.pointer)) {
        "is set by the server".clone_into(&mut fault.detail);
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(pointers: &[&str]) -> Vec<Fault> {
        pointers.iter().map(|pointer| Fault::new(*pointer, "is not known here")).collect()
    }

    #[test]
    fn a_listing_that_was_read_may_be_put_back() {
        let read = ["/id", "/version", "/available", "/created_at", "/variants/3/available", "/images/0/id", "/images/0/primary"];
        assert_eq!(ignoring_server_owned(unknown(&read)), []);
    }

    #[test]
    fn a_list_is_read_as_far_as_it_may_be_long() {
        let sent = serde_json::json!({ "title": "Lamp", "tags": vec!["t"; 10 * TAGS], "attributes": [], "images": null });
        let draft: ListingDraft = serde_json::from_value(sent).unwrap();
        assert_eq!((draft.tags.map(|tags| tags.len()), draft.attributes, draft.images), (Some(TAGS + 1), Some(Vec::new()), None));
        assert_eq!(draft.title.as_deref(), Some("Lamp"));
        let refused = serde_json::from_str::<ListingDraft>(r#"{"tags":"t"}"#).unwrap_err().to_string();
        assert!(refused.contains("expected a sequence"), "{refused}");
    }

    #[test]
    fn an_unknown_member_is_always_a_fault() {
        let odd = ["/colour", "/variants/0/colour", "/price/id", "/variants/0/price/available", "/location/version"];
        assert_eq!(ignoring_server_owned(unknown(&odd)), unknown(&odd));
    }

    #[test]
    fn a_create_may_not_send_what_the_server_sets() {
        let faults = refusing_server_owned(unknown(&["/id", "/colour"]));
        assert_eq!(faults, [Fault::new("/id", "is set by the server"), Fault::new("/colour", "is not known here")]);
    }
}
