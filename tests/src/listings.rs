//! Listings as sellers write them.

use events::{ListingId, VariantId};
use serde_json::{Value, json};

/// What a scenario wants to sell: `a_listing().titled("…").with_stock(5)`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListingDraft(pub Value);

/// Something that every seller could offer, and that no rule refuses.
#[must_use]
pub fn a_listing() -> ListingDraft {
    ListingDraft(json!({
        "title": "Mountain bicycle with front suspension",
        "description": "Ridden for one summer, kept in a dry cellar.",
        "category": "sport/cycling/bicycles",
        "price": { "amount": "24900.00", "currency": "RSD" },
        "condition": "used",
        "brand": "Capriolo",
        "language": "en",
        "attributes": [{ "name": "frame", "value": "aluminium" }, { "name": "weight", "value": "13.5", "unit": "kg" }],
        "tags": ["bicycle", "outdoor"],
        "location": { "country": "RS", "city": "Novi Sad", "point": { "lat": 45.2671, "lon": 19.8335 } },
    }))
}

impl ListingDraft {
    #[must_use]
    pub fn titled(self, title: &str) -> Self {
        self.with("title", title)
    }

    #[must_use]
    pub fn priced(self, amount: &str, currency: &str) -> Self {
        self.with("price", json!({ "amount": amount, "currency": currency }))
    }

    /// Pieces of its only variant.
    #[must_use]
    pub fn with_stock(self, pieces: i64) -> Self {
        self.with("stock", pieces)
    }

    /// A variant for each of these SKUs, instead of a single one without a name.
    #[must_use]
    pub fn in_variants(self, skus: &[&str]) -> Self {
        self.with("variants", skus.iter().map(|sku| json!({ "sku": sku, "label": sku })).collect::<Vec<_>>())
    }

    #[must_use]
    pub fn as_draft(self) -> Self {
        self.with("status", "draft")
    }

    /// Any field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }
}

/// A listing that was published, as its seller remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Published {
    pub id: ListingId,
    /// Its first variant.
    pub variant: VariantId,
}
