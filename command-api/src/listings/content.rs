//! What a seller says of a listing, once it keeps all rules. Reports every broken rule, each with its JSON pointer.

use events::listing::{Attribute, Condition, Location, Status, Visibility};
use events::{Money, UserId};
use service::problem::Fault;

use super::draft::ListingDraft;
use super::rules::{Faults, ImageLink, VariantSpec};

/// What may be changed of a listing by replacing it.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub title: String,
    pub description: String,
    pub category: Option<String>,
    pub price: Money,
    pub condition: Condition,
    pub visibility: Visibility,
    pub brand: Option<String>,
    pub language: Option<String>,
    pub attributes: Vec<Attribute>,
    pub tags: Vec<String>,
    pub location: Option<Location>,
    pub images: Vec<ImageLink>,
    /// `None`: those that there are, or a single plain one.
    pub variants: Option<Vec<VariantSpec>>,
    pub external_id: Option<String>,
}

/// What is said only once, when a listing is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub status: Status,
    /// Pieces of its only variant.
    pub stock: i64,
    /// Whose it is to be, if the caller says.
    pub seller: Option<UserId>,
}

impl Content {
    /// Judges a draft that replaces a listing, together with what was found in it before. What the server sets, the seller
    /// included, is passed over.
    pub fn judge(draft: ListingDraft, found: Vec<Fault>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::with(found);
        if draft.stock.is_some() {
            faults.add("/stock", "is set through the variant's own stock");
        }
        Self::read(draft, faults)
    }

    /// Judges a draft of a new listing.
    pub fn judge_new(draft: ListingDraft, found: Vec<Fault>) -> Result<(Self, Opening), Vec<Fault>> {
        let mut faults = Faults::with(found);
        for (at, variant) in draft.variants.iter().flatten().enumerate() {
            if variant.id.is_some() {
                faults.add(format!("/variants/{at}/id"), "is set by the server");
            }
        }
        if draft.stock.is_some() && draft.variants.as_ref().is_some_and(|variants| variants.len() > 1) {
            faults.add("/stock", "can only be given for a listing with one variant");
        }
        let opening = Opening {
            status: faults.opening_status(draft.status.as_deref()),
            stock: faults.opening_stock(draft.stock),
            seller: faults.id("/seller_id", draft.seller_id.as_deref()).map(UserId),
        };
        Ok((Self::read(draft, faults)?, opening))
    }

    fn read(draft: ListingDraft, mut faults: Faults) -> Result<Self, Vec<Fault>> {
        // Everything is looked at before anything is refused.
        let title = faults.title(draft.title);
        let description = faults.description(draft.description);
        let category = faults.category(draft.category);
        let price = faults.price("/price", draft.price.unwrap_or_default());
        let condition = faults.one_of("/condition", draft.condition, Condition::New, Condition::from_name, Condition::ALL);
        let visibility =
            faults.one_of("/visibility", draft.visibility, Visibility::Public, Visibility::from_name, Visibility::ALL);
        let brand = faults.brand(draft.brand);
        let language = faults.language(draft.language);
        let attributes = faults.attributes(draft.attributes.unwrap_or_default());
        let tags = faults.tags(draft.tags.unwrap_or_default());
        let location = draft.location.and_then(|location| faults.location(location));
        let images = faults.images(draft.images.unwrap_or_default());
        let variants = draft.variants.map(|variants| faults.variants(variants));
        let external_id = faults.external_id(draft.external_id);

        match price {
            Some(price) if faults.is_empty() => Ok(Self {
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
            }),
            Some(_) | None => Err(faults.all()),
        }
    }
}
