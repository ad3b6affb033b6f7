//! Listings: what sellers offer, with their variants.

// 1. What a client sends is judged.
pub mod content;
pub mod draft;
mod rules;

// 2. The verbs.
pub mod create_listing;
pub mod delete_listing;

// 3. What they share: the rows, locked.
mod rows;

use std::collections::BTreeSet;

use events::{Listing, Stock};

use crate::database::Failure;
use crate::refusal::Refused;

/// Stock was locked before the listing was: if the listing's variants changed in between, the command starts again.
fn same_variants(listing: &Listing, stock: &[Stock]) -> Result<(), Refused> {
    let locked: BTreeSet<_> = stock.iter().map(|stock| stock.variant_id).collect();
    let own: BTreeSet<_> = listing.variants.iter().map(|variant| variant.id).collect();
    if locked == own { Ok(()) } else { Err(Failure::VariantsChanged.into()) }
}
