//! Changes parts of a listing: a JSON merge patch (RFC 7396) on what a `PUT` would say.

use events::{Listing, ListingId};
use serde_json::{Value, json};
use service::http::{IfMatch, read_json};
use service::problem::Fault;

use super::content::Content;
use super::draft::{ListingDraft, passing_over_server_owned, refusing_server_owned};
use super::merge_patch::merge;
use super::replace_listing::{ReplaceRefused, replace_with};
use crate::app::App;
use crate::caller::Caller;
use crate::outcome::Done;

/// A patch that could be right; whether it is depends on the listing that it is for.
#[derive(Debug, Clone)]
pub struct Patch(Value);

impl Patch {
    /// Judges the patch alone, by what it makes of a listing on which every right patch succeeds.
    pub fn new(patch: Value) -> Result<Self, ReplaceRefused> {
        let Value::Object(members) = &patch else {
            return Err(ReplaceRefused::Invalid(vec![Fault::new("", "must be an object")]));
        };
        let mut faults = Vec::new();
        for name in ["status", "seller_id"] {
            if members.contains_key(name) {
                faults.push(Fault::new(format!("/{name}"), "is set by the server"));
            }
        }
        if members.get("stock").is_some_and(Value::is_null) {
            faults.push(Fault::new("/stock", "is set through the variant's own stock"));
        }
        if members.get("variants").is_some_and(Value::is_null) {
            faults.push(Fault::new("/variants", "must have at least one"));
        }
        let (draft, unknown) = read(&merge(most_tolerant(), &patch)).map_err(ReplaceRefused::Invalid)?;
        faults.extend(refusing_server_owned(unknown));
        Content::judge(draft, faults).map_err(ReplaceRefused::Invalid)?;
        Ok(Self(patch))
    }

    fn touches_variants(&self) -> bool {
        self.0.get("variants").is_some()
    }

    /// What the listing is to say.
    fn apply(&self, listing: &Listing) -> Result<Content, Vec<Fault>> {
        let mut present = json!(listing);
        if let Value::Object(members) = &mut present {
            members.remove("variants");
        }
        let (draft, unknown) = read(&merge(present, &self.0))?;
        Content::judge(draft, passing_over_server_owned(unknown))
    }
}

/// Takes any place, and any amount that some currency can have.
fn most_tolerant() -> Value {
    json!({
        "title": "t",
        "price": { "amount": "0", "currency": "KWD" },
        "location": { "point": { "lat": 0.0, "lon": 0.0 } },
    })
}

/// Reads a draft, and what is in it that no draft has.
fn read(value: &Value) -> Result<(ListingDraft, Vec<Fault>), Vec<Fault>> {
    read_json(value.to_string().as_bytes()).map_err(|problem| problem.errors)
}

pub async fn patch_listing(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
    patch: &Patch,
) -> Result<Done<Listing>, ReplaceRefused> {
    let change = replace_with(app, caller, id, expected, patch.touches_variants(), |listing| patch.apply(listing));
    app.metrics.queries.time("patch_listing", change).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listings::tests::{a_listing, pointers};

    fn faults_of(patch: Value) -> Vec<String> {
        match Patch::new(patch) {
            Ok(_) | Err(ReplaceRefused::Refused(_)) => Vec::new(),
            Err(ReplaceRefused::Invalid(faults)) => pointers(&faults).into_iter().map(str::to_owned).collect(),
        }
    }

    fn patched(patch: Value) -> Result<Content, Vec<Fault>> {
        let held = a_listing(&json!({
            "title": "t", "price": { "amount": "12.50", "currency": "EUR" }, "brand": "Acme", "condition": "used", "tags": ["a"],
            "location": { "country": "RS", "city": "Novi Sad" }, "images": [{ "url": "http://a.b/1", "alt": "one" }],
        }));
        Patch::new(patch).unwrap().apply(&held.listing)
    }

    #[test]
    fn a_patch_is_judged_without_the_listing() {
        assert_eq!(faults_of(json!({})), [""; 0]);
        assert_eq!(faults_of(json!([])), [""]);
        assert_eq!(faults_of(json!({ "title": null, "price": null })), ["/title", "/price"]);
        assert_eq!(faults_of(json!({ "price": { "amount": null } })), ["/price/amount"]);
        assert_eq!(faults_of(json!({ "price": { "amount": "1.2345" } })), ["/price/amount"]);
        assert_eq!(faults_of(json!({ "price": { "amount": 1.5 } })), ["/price/amount"]);
        assert_eq!(faults_of(json!({ "price": { "currency": "JPY" } })), [""; 0]);
        assert_eq!(faults_of(json!({ "location": { "point": { "lat": 1 } } })), [""; 0]);
        assert_eq!(faults_of(json!({ "variants": null })), ["/variants"]);
        assert_eq!(faults_of(json!({ "variants": [] })), ["/variants"]);
    }

    #[test]
    fn what_the_server_sets_is_refused_even_as_null() {
        for name in ["id", "version", "status", "seller_id", "available", "created_at", "updated_at", "published_at", "stock"] {
            assert_eq!(faults_of(json!({ name: null })), [format!("/{name}")], "{name}");
        }
        assert_eq!(faults_of(json!({ "version": 3, "colour": null })), ["/colour", "/version"]);
        assert_eq!(faults_of(json!({ "images": [{ "url": "http://a.b/1", "id": "x" }] })), ["/images/0/id"]);
        assert_eq!(faults_of(json!({ "variants": [{ "available": true }] })), ["/variants/0/available"]);
    }

    #[test]
    fn null_sets_what_a_new_listing_has() {
        let content =
            patched(json!({ "brand": null, "condition": null, "tags": null, "location": null, "images": null })).unwrap();
        assert_eq!((content.brand, content.location), (None, None));
        assert_eq!(content.condition, events::listing::Condition::New);
        assert!(content.tags.is_empty() && content.images.is_empty());
        assert_eq!(content.title, "t");
    }

    #[test]
    fn nested_objects_are_merged() {
        let content = patched(json!({ "price": { "amount": "9" }, "location": { "city": null, "address": "Main 1" } })).unwrap();
        assert_eq!(serde_json::to_value(content.price).unwrap(), json!({ "amount": "9", "currency": "EUR" }));
        let place = content.location.unwrap();
        assert_eq!((place.country.as_deref(), place.city, place.address.as_deref()), (Some("RS"), None, Some("Main 1")));
    }

    #[test]
    fn what_only_the_listing_can_tell_is_a_fault_too() {
        assert_eq!(pointers(&patched(json!({ "price": { "currency": "JPY" } })).unwrap_err()), ["/price/amount"]);
        assert_eq!(pointers(&patched(json!({ "location": { "point": { "lat": 1 } } })).unwrap_err()), ["/location/point/lon"]);
    }
}
