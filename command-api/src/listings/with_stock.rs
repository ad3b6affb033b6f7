//! A listing together with the stock of its variants, as a command holds it.

use std::collections::BTreeSet;

use events::{Listing, Stock};

use crate::database::Failure;
use crate::refusal::Refused;

#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub listing: Listing,
    /// Of all its variants; empty if the command touches no variant.
    pub stock: Vec<Stock>,
}

impl Held {
    /// Stock is locked before listings are (PROTOCOL W1): if the listing's variants changed in between, the command starts
    /// again.
    pub fn with_all_stock(listing: Listing, stock: Vec<Stock>) -> Result<Self, Refused> {
        let locked: BTreeSet<_> = stock.iter().map(|stock| stock.variant_id).collect();
        let own: BTreeSet<_> = listing.variants.iter().map(|variant| variant.id).collect();
        if locked == own { Ok(Self { listing, stock }) } else { Err(Failure::VariantsChanged.into()) }
    }
}
