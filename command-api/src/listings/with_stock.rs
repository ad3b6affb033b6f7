//! A listing together with the stock of its variants: how a new one begins, and how one is locked.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use events::listing::{Image, Listing, ListingChange, Status, Variant};
use events::stock::{Stock, StockChange};
use events::{ImageId, ListingId, UserId, VariantId};
use sqlx::PgConnection;

use super::content::{Content, Opening};
use super::offer::VariantSpec;
use super::place::ImageLink;
use crate::command::CommandError;
use crate::journal::Changes;
use crate::tables::listings::lock_listing;
use crate::tables::stock::lock_stock_of;

#[derive(Debug, Clone, PartialEq)]
pub struct ListingWithStock {
    pub listing: Listing,
    /// Of all its variants; empty in a command that touches no variant.
    pub stock: Vec<Stock>,
}

impl ListingWithStock {
    /// Joins what was locked. Stock is locked before listings (PROTOCOL W1): if the listing's variants changed in between, the
    /// command starts again.
    pub fn of_locked(listing: Listing, stock: Vec<Stock>) -> Result<Self, CommandError> {
        let locked: BTreeSet<_> = stock.iter().map(|stock| stock.variant_id).collect();
        let own: BTreeSet<_> = listing.variants.iter().map(|variant| variant.id).collect();
        if locked == own { Ok(Self { listing, stock }) } else { Err(CommandError::VariantsChanged) }
    }

    /// Locks a listing and the stock of all its variants.
    pub async fn lock(tx: &mut PgConnection, id: ListingId) -> Result<Self, CommandError> {
        let stock = lock_stock_of(tx, &[id]).await?;
        let listing = lock_listing(tx, id).await?.ok_or(CommandError::NotFound)?;
        Self::of_locked(listing, stock)
    }
}

/// A new listing at version 1, and a stock at version 1 for each variant.
pub fn open(
    content: Content,
    opening: &Opening,
    id: ListingId,
    seller: UserId,
    now: DateTime<Utc>,
    mut new_variant: impl FnMut() -> VariantId,
) -> (ListingWithStock, Changes) {
    let specs = content.variants.unwrap_or_else(|| vec![VariantSpec::default()]);
    let variants: Vec<Variant> = specs.into_iter().map(|spec| open_variant(spec, new_variant(), opening.stock > 0)).collect();
    let images = content.images.into_iter().zip(0..).map(|(link, position)| open_image(link, ImageId::new(), position));
    let listing = Listing {
        id,
        version: 1,
        status: opening.status,
        visibility: content.visibility,
        seller_id: seller,
        title: content.title,
        description: content.description,
        category: content.category,
        price: content.price,
        condition: content.condition,
        brand: content.brand,
        language: content.language,
        attributes: content.attributes,
        tags: content.tags,
        location: content.location,
        images: images.collect(),
        available: variants.iter().any(|variant| variant.available),
        variants,
        external_id: content.external_id,
        created_at: now.into(),
        updated_at: now.into(),
        published_at: (opening.status == Status::Active).then(|| now.into()),
    };
    let open = |variant: &Variant| Stock { on_hand: opening.stock, ..empty_stock(&listing, variant.id, now) };
    let stock: Vec<Stock> = listing.variants.iter().map(open).collect();
    let mut changes = Changes::default();
    for stock in &stock {
        changes.push::<Stock>(StockChange::Opened { on_hand: stock.on_hand }, stock.clone());
    }
    changes.push::<Listing>(ListingChange::Created {}, listing.clone());
    (ListingWithStock { listing, stock }, changes)
}

/// A new variant.
pub fn open_variant(spec: VariantSpec, id: VariantId, available: bool) -> Variant {
    Variant { id, sku: spec.sku, label: spec.label, price: spec.price, available }
}

/// The stock of a new variant: every variant has one from the beginning.
pub fn empty_stock(listing: &Listing, variant: VariantId, now: DateTime<Utc>) -> Stock {
    Stock {
        variant_id: variant,
        listing_id: listing.id,
        seller_id: listing.seller_id,
        on_hand: 0,
        reserved: 0,
        low_stock_threshold: None,
        version: 1,
        updated_at: now.into(),
    }
}

/// A new image.
pub fn open_image(link: ImageLink, id: ImageId, position: u32) -> Image {
    Image { id, url: link.url, content_type: None, width: None, height: None, position, primary: position == 0, alt: link.alt }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::listings::tests::{SELLER, a_listing};

    #[test]
    fn a_listing_without_variants_gets_one_with_its_stock() {
        let opened = a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "stock": 3 }));
        let [stock] = &opened.stock[..] else { panic!("one stock") };
        assert_eq!((stock.on_hand, stock.version, stock.variant_id), (3, 1, opened.listing.variants[0].id));
        assert!(opened.listing.available && opened.listing.variants[0].available);
        assert_eq!((opened.listing.version, opened.listing.seller_id), (1, SELLER));
    }

    #[test]
    fn without_stock_it_is_not_available() {
        let opened =
            a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "variants": [{ "sku": "a" }, { "sku": "b" }] }));
        assert!(!opened.listing.available);
        assert_eq!(opened.stock.len(), 2);
    }
}
