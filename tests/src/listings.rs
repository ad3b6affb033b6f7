//! Listing drafts that scenarios send, and what they keep of a published listing.

use events::{ListingId, VariantId};
use serde_json::{Value, json};

/// The body of a request that creates a listing: `a_listing().titled("…").with_stock(5)`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListingDraft(pub Value);

/// Returns a valid draft that every seller may publish.
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

    /// Sets the initial stock, in pieces, of the only variant.
    #[must_use]
    pub fn with_stock(self, pieces: i64) -> Self {
        self.with("stock", pieces)
    }

    /// Replaces the single unnamed variant by one variant per SKU.
    #[must_use]
    pub fn in_variants(self, skus: &[&str]) -> Self {
        self.with("variants", skus.iter().map(|sku| json!({ "sku": sku, "label": sku })).collect::<Vec<_>>())
    }

    #[must_use]
    pub fn as_draft(self) -> Self {
        self.with("status", "draft")
    }

    /// Sets any field of the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }
}

/// The ids of a listing that a scenario has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Published {
    pub id: ListingId,
    /// The listing's first variant.
    pub variant: VariantId,
}
