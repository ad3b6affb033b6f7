//! The rule by which new content takes the place of old: which variants stay, come and go, and whether anything changed.

use chrono::{DateTime, Utc};
use events::listing::{Image, Listing, ListingChange, Variant};
use events::stock::{Stock, StockChange};
use events::{ImageId, ListingId, VariantId};
use service::problem::Fault;
use sqlx::PgConnection;

use super::content::Content;
use super::offer::VariantSpec;
use super::place::ImageLink;
use super::with_stock::{ListingWithStock, empty_stock, open_image, open_variant};
use crate::actor::Actor;
use crate::command::{CommandError, Expected};
use crate::journal::Changes;
use crate::tables::listings::lock_listing;

/// Locks a listing for new content. Its stock is locked too if the command touches the variants.
pub async fn lock_to_revise(
    tx: &mut PgConnection,
    actor: &Actor,
    id: ListingId,
    expected: &Expected,
    touches_variants: bool,
) -> Result<ListingWithStock, CommandError> {
    let before = if touches_variants {
        ListingWithStock::lock(tx, id).await?
    } else {
        let listing = lock_listing(tx, id).await?.ok_or(CommandError::NotFound)?;
        ListingWithStock { listing, stock: Vec::new() }
    };
    actor.must_be_able_to_change(&before.listing)?;
    expected.check(before.listing.version)?;
    Ok(before)
}

/// Makes the ids of new variants and images, so that the rule itself makes none.
#[derive(Clone, Copy)]
pub struct NewIds {
    pub variant: fn() -> VariantId,
    pub image: fn() -> ImageId,
}

impl NewIds {
    pub fn random() -> Self {
        Self { variant: VariantId::new, image: ImageId::new }
    }
}

/// The listing with this content, and no changes if it had that content before. Returns faults that only show against the present
/// state.
pub fn revise(
    with_stock: &ListingWithStock,
    content: Content,
    now: DateTime<Utc>,
    ids: NewIds,
) -> Result<(ListingWithStock, Changes), Vec<Fault>> {
    let before = &with_stock.listing;
    let variants = match content.variants {
        Some(specs) => match_variants(&before.variants, specs, ids.variant)?,
        None => before.variants.clone(),
    };
    let mut after = Listing {
        title: content.title,
        description: content.description,
        category: content.category,
        price: content.price,
        condition: content.condition,
        visibility: content.visibility,
        brand: content.brand,
        language: content.language,
        attributes: content.attributes,
        tags: content.tags,
        location: content.location,
        images: match_images(&before.images, content.images, ids.image),
        available: variants.iter().any(|variant| variant.available),
        variants,
        external_id: content.external_id,
        ..before.clone()
    };
    let fields = changed_fields(before, &after);
    let mut changes = Changes::default();
    if fields.is_empty() {
        return Ok((with_stock.clone(), changes));
    }
    after.version += 1;
    // The clock was read before the lock was granted, and another process has another clock.
    after.updated_at = before.updated_at.max(now.into());

    let (mut stock, gone): (Vec<_>, Vec<_>) =
        with_stock.stock.iter().cloned().partition(|stock| after.variants.iter().any(|variant| variant.id == stock.variant_id));
    for stock in gone {
        changes.end::<Stock>(StockChange::Removed {}, stock);
    }
    for variant in after.variants.iter().filter(|variant| before.variants.iter().all(|old| old.id != variant.id)) {
        let opened = empty_stock(&after, variant.id, now);
        changes.push::<Stock>(StockChange::Opened { on_hand: 0 }, opened.clone());
        stock.push(opened);
    }
    changes.push::<Listing>(ListingChange::Updated { fields }, after.clone());
    Ok((ListingWithStock { listing: after, stock }, changes))
}

/// Matches given variants to present ones: by id, else by sku, else the only one to the only one.
fn match_variants(old: &[Variant], specs: Vec<VariantSpec>, new_id: fn() -> VariantId) -> Result<Vec<Variant>, Vec<Fault>> {
    let only_one = old.len() == 1 && specs.len() == 1;
    let mut left: Vec<&Variant> = old.iter().collect();
    let mut take = |is_it: &dyn Fn(&Variant) -> bool| {
        let at = left.iter().position(|variant| is_it(variant))?;
        Some(left.swap_remove(at))
    };
    // Ids come first: a sku may have moved from one variant to another.
    let by_id: Vec<Option<&Variant>> =
        specs.iter().map(|spec| spec.id.and_then(|id| take(&|variant| variant.id == id))).collect();
    let foreign = specs.iter().zip(&by_id).enumerate().filter(|(_, (spec, found))| spec.id.is_some() && found.is_none());
    let faults: Vec<Fault> =
        foreign.map(|(at, _)| Fault::new(format!("/variants/{at}/id"), "is not a variant of this listing")).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let matched = specs.into_iter().zip(by_id).map(|(spec, found)| {
        let found = found
            .or_else(|| spec.sku.as_ref().and_then(|sku| take(&|variant| variant.sku.as_ref() == Some(sku))))
            .or_else(|| only_one.then(|| take(&|_| true)).flatten());
        let (id, available) = found.map_or_else(|| (new_id(), false), |found| (found.id, found.available));
        open_variant(spec, id, available)
    });
    Ok(matched.collect())
}

/// An image whose URL is known keeps its id at any position.
fn match_images(old: &[Image], links: Vec<ImageLink>, new_id: fn() -> ImageId) -> Vec<Image> {
    let matched = links.into_iter().zip(0..).map(|(link, position)| match old.iter().find(|image| image.url == link.url) {
        Some(image) => Image { position, primary: position == 0, alt: link.alt, ..image.clone() },
        None => open_image(link, new_id(), position),
    });
    matched.collect()
}

fn changed_fields(before: &Listing, after: &Listing) -> Vec<String> {
    // Without `..`: a new field of a listing does not compile until it is compared here, or named as one that content does not set.
    let Listing {
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
        id: _,
        version: _,
        status: _,
        seller_id: _,
        available: _,
        created_at: _,
        updated_at: _,
        published_at: _,
    } = before;
    let compared = [
        ("title", *title != after.title),
        ("description", *description != after.description),
        ("category", *category != after.category),
        ("price", *price != after.price),
        ("condition", *condition != after.condition),
        ("visibility", *visibility != after.visibility),
        ("brand", *brand != after.brand),
        ("language", *language != after.language),
        ("attributes", *attributes != after.attributes),
        ("tags", *tags != after.tags),
        ("location", *location != after.location),
        ("images", *images != after.images),
        ("variants", *variants != after.variants),
        ("external_id", *external_id != after.external_id),
    ];
    compared.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::listings::tests::{a_listing, content, now, pointers};

    fn body() -> Value {
        json!({
            "title": "Shoe", "price": { "amount": "10" }, "external_id": "x",
            "variants": [{ "sku": "A" }, { "sku": "B" }],
            "images": [{ "url": "http://a.b/1" }, { "url": "http://a.b/2" }],
        })
    }

    fn revised(before: &ListingWithStock, body: &Value) -> (ListingWithStock, Changes) {
        revise(before, content(body), now(), NewIds::random()).unwrap()
    }

    fn id(before: &ListingWithStock, sku: &str) -> VariantId {
        before.listing.variants.iter().find(|variant| variant.sku.as_deref() == Some(sku)).unwrap().id
    }

    #[test]
    fn the_same_content_is_no_change() {
        let before = a_listing(&body());
        let (same, changes) = revised(&before, &body());
        assert!(changes.is_empty());
        assert_eq!(same, before);
        // An amount is the same amount however many zeros it ends with.
        let mut zeros = body();
        zeros["price"]["amount"] = json!("10.00");
        assert!(revised(&before, &zeros).1.is_empty());
    }

    #[test]
    fn a_change_names_its_fields_and_takes_a_version() {
        let before = a_listing(&body());
        let mut new = body();
        new["title"] = json!("Boot");
        new["brand"] = json!("Acme");
        let (after, changes) = revised(&before, &new);
        assert_eq!((after.listing.version, after.listing.updated_at), (2, now().into()));
        assert_eq!(after.listing.created_at, before.listing.created_at);
        let mut expected = Changes::default();
        expected.push::<Listing>(ListingChange::Updated { fields: vec!["title".into(), "brand".into()] }, after.listing.clone());
        assert_eq!(format!("{changes:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_listing_is_never_older_than_its_version_before() {
        let mut before = a_listing(&body());
        before.listing.updated_at = (now() + chrono::TimeDelta::seconds(9)).into();
        let mut new = body();
        new["title"] = json!("Boot");
        assert_eq!(revised(&before, &new).0.listing.updated_at, before.listing.updated_at);
    }

    #[test]
    fn variants_match_by_id_then_by_sku() {
        let before = a_listing(&body());
        let (a, b) = (id(&before, "A"), id(&before, "B"));

        let mut swapped = body();
        swapped["variants"] = json!([{ "id": a, "sku": "B" }, { "sku": "A" }]);
        let (after, _) = revised(&before, &swapped);
        assert_eq!(id(&after, "B"), a, "the id names it, whatever its sku is now");
        assert_ne!(id(&after, "A"), a, "A was taken by its id already");
        assert_ne!(id(&after, "A"), b, "B's sku is not A");

        let mut relabelled = body();
        relabelled["variants"] = json!([{ "sku": "B", "label": "big" }, { "sku": "A" }]);
        let (after, _) = revised(&before, &relabelled);
        assert_eq!((id(&after, "A"), id(&after, "B")), (a, b));
    }

    #[test]
    fn what_is_not_mentioned_is_removed_with_its_stock_and_what_is_new_gets_one() {
        let before = a_listing(&body());
        let (a, b) = (id(&before, "A"), id(&before, "B"));
        let mut other = body();
        other["variants"] = json!([{ "sku": "B" }, { "sku": "C" }]);
        let (after, changes) = revised(&before, &other);
        let c = id(&after, "C");
        assert_eq!(after.stock.iter().map(|stock| stock.variant_id).collect::<Vec<_>>(), [b, c]);

        let old = before.stock.iter().find(|stock| stock.variant_id == a).unwrap().clone();
        let mut expected = Changes::default();
        expected.end::<Stock>(StockChange::Removed {}, old);
        expected.push::<Stock>(StockChange::Opened { on_hand: 0 }, after.stock[1].clone());
        expected.push::<Listing>(ListingChange::Updated { fields: vec!["variants".into()] }, after.listing.clone());
        assert_eq!(format!("{changes:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_single_variant_stays_itself_under_another_sku() {
        let one = json!({ "title": "t", "price": { "amount": "1" }, "stock": 3 });
        let before = a_listing(&one);
        let (after, _) = revised(&before, &json!({ "title": "t", "price": { "amount": "1" }, "variants": [{ "sku": "NEW" }] }));
        assert_eq!(after.listing.variants[0].id, before.listing.variants[0].id);
        assert!(after.listing.available);
    }

    #[test]
    fn removing_the_last_available_variant_makes_the_listing_unavailable() {
        let mut before = a_listing(&body());
        before.listing.variants[0].available = true;
        before.listing.available = true;
        let mut without = body();
        without["variants"] = json!([{ "sku": "B" }]);
        assert!(!revised(&before, &without).0.listing.available);
    }

    #[test]
    fn an_id_of_another_listing_is_a_fault() {
        let before = a_listing(&body());
        let mut foreign = body();
        foreign["variants"] = json!([{ "sku": "A" }, { "id": VariantId::new() }]);
        let faults = revise(&before, content(&foreign), now(), NewIds::random()).unwrap_err();
        assert_eq!(pointers(&faults), ["/variants/1/id"]);
    }

    #[test]
    fn pictures_keep_their_ids_wherever_they_stand() {
        let before = a_listing(&body());
        let mut turned = body();
        turned["images"] = json!([{ "url": "http://a.b/2" }, { "url": "http://a.b/3" }, { "url": "http://a.b/1", "alt": "one" }]);
        let (after, _) = revised(&before, &turned);
        let (old, new) = (&before.listing.images, &after.listing.images);
        assert_eq!((new[0].id, new[2].id), (old[1].id, old[0].id));
        assert_eq!(
            new.iter().map(|image| (image.position, image.primary)).collect::<Vec<_>>(),
            [(0, true), (1, false), (2, false)]
        );
    }
}
