//! Whether a listing is available, as its own event. A command that takes a stock from or to zero calls this in its transaction.

use chrono::{DateTime, Utc};
use events::listing::ListingChange;
use events::{Listing, Stock, VariantId};
use sqlx::PgConnection;

use crate::command::CommandError;
use crate::journal::Changes;
use crate::tables::listings::lock_listing;

/// Locks the listing of a stock and adds the change of its availability.
///
/// The lock is a statement of its own: only a statement after it sees what the former holder of the lock committed (PROTOCOL W2).
pub async fn set_availability(
    tx: &mut PgConnection,
    stock: &Stock,
    now: DateTime<Utc>,
    changes: &mut Changes,
) -> Result<Listing, CommandError> {
    let listing = lock_listing(tx, stock.listing_id).await?.ok_or(CommandError::NotFound)?;
    let (variant_id, available) = (stock.variant_id, stock.available() > 0);
    let listing = with_availability(listing, variant_id, available, now);
    changes.push::<Listing>(ListingChange::AvailabilityChanged { variant_id, available }, listing.clone());
    Ok(listing)
}

/// Computed from the listing's own variants: of two that reach zero together, neither may take the other one for available.
fn with_availability(mut listing: Listing, variant: VariantId, available: bool, now: DateTime<Utc>) -> Listing {
    for own in listing.variants.iter_mut().filter(|own| own.id == variant) {
        own.available = available;
    }
    listing.available = listing.variants.iter().any(|variant| variant.available);
    listing.version += 1;
    listing.updated_at = listing.updated_at.max(now.into());
    listing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::listings::tests::{a_listing, now};

    #[test]
    fn two_variants_at_zero_make_the_listing_unavailable_one_is_not_enough() {
        let body = json!({ "title": "t", "price": { "amount": "1" }, "variants": [{ "sku": "a" }, { "sku": "b" }] });
        let mut listing = a_listing(&body).listing;
        for variant in &mut listing.variants {
            variant.available = true;
        }
        listing.available = true;
        let (a, b) = (listing.variants[0].id, listing.variants[1].id);

        let first = with_availability(listing, a, false, now());
        assert!(first.available && !first.variants[0].available);
        let second = with_availability(first, b, false, now());
        assert!(!second.available);
        assert_eq!(second.version, 3);
    }
}
