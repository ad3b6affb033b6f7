//! Validators of what is offered: variants, and the status and stock that a new listing starts with.

use std::collections::BTreeSet;

use events::listing::Status;
use events::stock::PIECES_LIMIT;
use events::{Money, VariantId};

use super::draft::{VARIANTS, VariantDraft};
use crate::validation::{Faults, count, one_of, optional, price, uuid};

// Limits in characters.
const SKU: usize = 100;
const LABEL: usize = 100;

/// The status of a new listing.
pub fn first_status(faults: &mut Faults, name: Option<&str>) -> Status {
    one_of(faults, "/status", name, Status::Active, &[Status::Active, Status::Draft], Status::as_str)
}

/// The stock of a new listing's only variant.
pub fn first_stock(faults: &mut Faults, pieces: Option<i64>) -> i64 {
    let pieces = pieces.unwrap_or_default();
    if !(0..=PIECES_LIMIT).contains(&pieces) {
        faults.add("/stock", format!("must be from 0 to {PIECES_LIMIT}"));
    }
    pieces
}

/// A variant as its seller gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VariantSpec {
    pub id: Option<VariantId>,
    pub sku: Option<String>,
    pub label: Option<String>,
    pub price: Option<Money>,
}

pub fn variants(faults: &mut Faults, variants: Vec<VariantDraft>) -> Vec<VariantSpec> {
    if variants.is_empty() {
        faults.add("/variants", "must have at least one");
    }
    count(faults, "/variants", variants.len(), VARIANTS);
    let (mut ids, mut skus) = (BTreeSet::new(), BTreeSet::new());
    let read = |(at, variant): (usize, VariantDraft)| {
        let pointer = format!("/variants/{at}");
        let id = uuid(faults, &format!("{pointer}/id"), variant.id.as_deref());
        if id.is_some_and(|id| !ids.insert(id)) {
            faults.add(format!("{pointer}/id"), "is given twice");
        }
        if variant.sku.as_ref().is_some_and(|sku| !skus.insert(sku.clone())) {
            faults.add(format!("{pointer}/sku"), "is given twice");
        }
        VariantSpec {
            id: id.map(VariantId),
            sku: optional(faults, &format!("{pointer}/sku"), variant.sku, SKU),
            label: optional(faults, &format!("{pointer}/label"), variant.label, LABEL),
            price: variant.price.and_then(|price_draft| price(faults, &format!("{pointer}/price"), price_draft)),
        }
    };
    variants.into_iter().enumerate().map(read).collect()
}
