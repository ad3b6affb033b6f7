//! Puts a new listing on the marketplace, as a draft or at once for sale, with the stock of each of its variants.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::listing::{Image, Listing, ListingChange, Status, Variant};
use events::stock::{Stock, StockChange};
use events::{ConsistencyToken, ImageId, ListingId, UserId, VariantId};
use service::problem::{Fault, Kind, Refusal};
use tracing::info;

use super::content::{Content, ImageLink, Opening, VariantSpec};
use super::draft::{ListingDraft, refusing_server_owned};
use crate::app::App;
use crate::caller::Caller;
use crate::journal::{self, Facts};
use crate::refusal::Refused;

/// How long a client waits for a new listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A new listing that keeps all rules.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateListing {
    pub content: Content,
    pub opening: Opening,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateRefused {
    #[error("The listing breaks rules")]
    Invalid(Vec<Fault>),
    #[error("Only an admin may make listings for others")]
    ForAnother,
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal for CreateRefused {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::ForAnother => Kind::Forbidden,
            Self::Refused(refused) => refused.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::ForAnother | Self::Refused(_) => Vec::new(),
        }
    }
}

impl CreateListing {
    /// Judges what a client sent. `unknown` are the members that no draft has.
    pub fn new(draft: ListingDraft, unknown: Vec<Fault>) -> Result<Self, CreateRefused> {
        let (content, opening) = Content::judge_new(draft, refusing_server_owned(unknown)).map_err(CreateRefused::Invalid)?;
        Ok(Self { content, opening })
    }

    /// Whose listing it becomes.
    pub fn seller(&self, caller: &Caller) -> Result<UserId, CreateRefused> {
        match self.opening.seller {
            Some(other) if other != caller.user && !caller.is_admin() => Err(CreateRefused::ForAnother),
            Some(seller) => Ok(seller),
            None => Ok(caller.user),
        }
    }
}

/// Decide and write: one statement, one round trip.
pub async fn create_listing(
    app: &App,
    caller: &Caller,
    command: CreateListing,
) -> Result<(Listing, ConsistencyToken), CreateRefused> {
    let now = app.clock.now();
    let seller = command.seller(caller)?;
    let (listing, facts) = open(command, ListingId::new(), seller, now, VariantId::new);

    let writing = async {
        let mut connection = app.database.connection().await?;
        journal::write(&mut connection, &facts, caller, now).await
    };
    app.metrics.queries.time("create_listing", writing).await?;
    app.wake.ring();

    app.metrics.created.inc();
    info!(listing.id = %listing.id, seller.id = %seller, "Created listing {}", listing.id);
    Ok((listing, facts.token()))
}

/// A listing at version 1, and a stock at version 1 for each variant.
pub fn open(
    command: CreateListing,
    id: ListingId,
    seller: UserId,
    now: DateTime<Utc>,
    mut new_variant: impl FnMut() -> VariantId,
) -> (Listing, Facts) {
    let CreateListing { content, opening } = command;
    let specs = content.variants.unwrap_or_else(|| vec![VariantSpec::default()]);
    let variants: Vec<Variant> = specs.into_iter().map(|spec| open_variant(spec, new_variant(), opening.stock > 0)).collect();
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
        images: content.images.into_iter().zip(0..).map(|(link, position)| show(link, ImageId::new(), position)).collect(),
        available: variants.iter().any(|variant| variant.available),
        variants,
        external_id: content.external_id,
        created_at: now.into(),
        updated_at: now.into(),
        published_at: (opening.status == Status::Active).then(|| now.into()),
    };
    let mut facts = Facts::default();
    for variant in &listing.variants {
        let stock = empty_stock(&listing, variant.id, now);
        facts.stock(StockChange::Opened { on_hand: opening.stock }, Stock { on_hand: opening.stock, ..stock });
    }
    facts.listing(ListingChange::Created {}, listing.clone());
    (listing, facts)
}

/// A variant that did not exist before.
pub fn open_variant(spec: VariantSpec, id: VariantId, available: bool) -> Variant {
    Variant { id, sku: spec.sku, label: spec.label, price: spec.price, available }
}

/// Every variant has a stock from its first moment.
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

/// A picture that stays where it is and is never fetched.
pub fn show(link: ImageLink, id: ImageId, position: u32) -> Image {
    Image { id, url: link.url, content_type: None, width: None, height: None, position, primary: position == 0, alt: link.alt }
}
