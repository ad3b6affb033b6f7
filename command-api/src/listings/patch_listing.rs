//! Changes parts of a listing: a JSON merge patch (RFC 7396) of what a `PUT` would say.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{Listing, ListingId};
use serde_json::{Value, json};
use service::json as json_document;
use service::problem::Fault;
use sqlx::PgConnection;
use tracing::info;

use super::content::Content;
use super::draft::{ListingDraft, ignoring_server_owned, refusing_server_owned};
use super::merge_patch::merge;
use super::replace_listing::ReplaceError;
use super::revise::{NewIds, lock_to_revise, revise};
use crate::actor::Actor;
use crate::command::{CommandApp, CommandOutcome, Expected};
use crate::journal;
use crate::transaction;

/// The name under which its duration is measured.
pub const OPERATION: &str = "patch_listing";
/// How long a client waits for a change of a listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct PatchListing {
    listing: ListingId,
    expected: Expected,
    patch: ListingPatch,
}

impl PatchListing {
    /// Judges the patch as far as that is possible without the listing.
    pub fn new(listing: ListingId, expected: Option<Expected>, patch: Value) -> Result<Self, ReplaceError> {
        let patch = ListingPatch::new(patch).map_err(ReplaceError::Invalid)?;
        Ok(Self { listing, expected: Expected::required(expected)?, patch })
    }
}

/// Patches the listing in a transaction of its own.
pub async fn patch_listing(
    app: &CommandApp,
    actor: &Actor,
    command: &PatchListing,
) -> Result<CommandOutcome<Listing>, ReplaceError> {
    let work = transaction::retried(|| async {
        let mut tx = transaction::begin(app, DEADLINE).await?;
        let outcome = patch_listing_in(&mut tx, actor, command, app.clock.now()).await;
        transaction::end(tx, outcome).await
    });
    let outcome = app.metrics.queries.time(OPERATION, work).await?;
    if outcome.is_written() {
        app.wake.ring();
        app.metrics.updated.inc();
        info!(listing.id = %command.listing, "Changed listing {}", command.listing);
    }
    Ok(outcome)
}

/// Lock, decide, write, in the transaction of the caller. Without a change there is nothing to write.
pub async fn patch_listing_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &PatchListing,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Listing>, ReplaceError> {
    let PatchListing { listing, expected, patch } = command;
    let before = lock_to_revise(tx, actor, *listing, expected, patch.touches_variants()).await?;
    let content = patch.apply(&before.listing).map_err(ReplaceError::Invalid)?;
    let (after, changes) = revise(&before, content, now, NewIds::random()).map_err(ReplaceError::Invalid)?;

    journal::write(tx, &changes, actor, now).await?;
    Ok(changes.outcome(after.listing))
}

/// A patch that is valid without looking at the listing. Applied to a listing it may still break a rule.
#[derive(Debug, Clone)]
struct ListingPatch(Value);

impl ListingPatch {
    /// Judges the patch alone: applies it to a listing on which every correct patch succeeds.
    fn new(patch: Value) -> Result<Self, Vec<Fault>> {
        let Value::Object(members) = &patch else { return Err(vec![Fault::new("", "must be an object")]) };
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
        let (draft, unknown) = read(&merge(most_tolerant(), &patch))?;
        faults.extend(refusing_server_owned(unknown));
        Content::judge(draft, faults)?;
        Ok(Self(patch))
    }

    fn touches_variants(&self) -> bool {
        self.0.get("variants").is_some()
    }

    /// The content of the listing after the patch.
    fn apply(&self, listing: &Listing) -> Result<Content, Vec<Fault>> {
        let mut present = json!(listing);
        if let Value::Object(members) = &mut present {
            members.remove("variants");
        }
        let (draft, unknown) = read(&merge(present, &self.0))?;
        Content::judge(draft, ignoring_server_owned(unknown))
    }
}

/// A draft that any location, and any amount in some currency, can be merged into.
fn most_tolerant() -> Value {
    json!({
        "title": "t",
        "price": { "amount": "0", "currency": "KWD" },
        "location": { "point": { "lat": 0.0, "lon": 0.0 } },
    })
}

/// Reads a draft, and the faults of members that no draft has.
fn read(value: &Value) -> Result<(ListingDraft, Vec<Fault>), Vec<Fault>> {
    json_document::read(value.to_string().as_bytes()).map_err(|error| vec![error.into_fault()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listings::tests::{a_listing, pointers};

    fn faults_of(patch: Value) -> Vec<String> {
        let faults = ListingPatch::new(patch).err().unwrap_or_default();
        pointers(&faults).into_iter().map(str::to_owned).collect()
    }

    fn patched(patch: Value) -> Result<Content, Vec<Fault>> {
        let before = a_listing(&json!({
            "title": "t", "price": { "amount": "12.50", "currency": "EUR" }, "brand": "Acme", "condition": "used", "tags": ["a"],
            "location": { "country": "RS", "city": "Novi Sad" }, "images": [{ "url": "http://a.b/1", "alt": "one" }],
        }));
        ListingPatch::new(patch).unwrap().apply(&before.listing)
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
