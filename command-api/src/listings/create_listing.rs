//! Puts a new listing on the marketplace, as a draft or at once for sale, with the stock of each of its variants.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::listing::{Image, Listing, ListingChange, Status, Variant};
use events::stock::{Stock, StockChange};
use events::{AggregateKey, ImageId, ListingId, UserId, VariantId};
use http::StatusCode;
use service::problem::{Fault, Kind, Refusal};
use sqlx::PgConnection;
use tracing::info;

use super::content::{Content, Opening};
use super::draft::{ListingDraft, refusing_server_owned};
use super::held::Held;
use super::rules::{ImageLink, VariantSpec};
use crate::app::App;
use crate::caller::Caller;
use crate::idempotency::{self, Keyed};
use crate::journal::{self, Facts};
use crate::outcome::Done;
use crate::refusal::{Refused, Repeatable};
use crate::transaction;

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
    /// Of a batch.
    #[error("The lines before took all the time; nothing of this one was done, send it again")]
    LeftOut,
    /// With the other lines of a transaction.
    #[error("{why}")]
    WithOthers { kind: Kind, why: String },
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal for CreateRefused {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::ForAnother => Kind::Forbidden,
            Self::LeftOut => Kind::Unavailable,
            Self::WithOthers { kind, .. } => *kind,
            Self::Refused(refused) => refused.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::ForAnother | Self::LeftOut | Self::WithOthers { .. } | Self::Refused(_) => Vec::new(),
        }
    }
}

impl Repeatable for CreateRefused {
    fn lost_race(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.lost_race())
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

/// Decide and write: one statement, one round trip. A request that must not be done twice takes a transaction of several.
pub async fn create_listing(
    app: &App,
    caller: &Caller,
    command: CreateListing,
    keyed: Option<&Keyed>,
) -> Result<Done<Listing>, CreateRefused> {
    let done = match keyed {
        None => app.metrics.queries.time("create_listing", at_once(app, caller, command)).await?,
        Some(keyed) => {
            let creation = transaction::repeated(|| once(app, caller, command.clone(), keyed));
            app.metrics.queries.time("create_listing_once", creation).await?
        }
    };
    if !done.replayed {
        app.wake.ring();
        app.metrics.created.inc();
        let (id, seller) = (done.state.id, done.state.seller_id);
        info!(listing.id = %id, seller.id = %seller, "Created listing {id}");
    }
    Ok(done)
}

async fn at_once(app: &App, caller: &Caller, command: CreateListing) -> Result<Done<Listing>, CreateRefused> {
    let now = app.clock.now();
    let seller = command.seller(caller)?;
    let (held, facts) = open(command, ListingId::new(), seller, now, VariantId::new);
    let mut connection = app.database.connection().await.map_err(Refused::from)?;
    journal::write_and_commit(&mut connection, &facts, caller, now).await?;
    Ok(Done::now(held.listing, facts.token()))
}

async fn once(app: &App, caller: &Caller, command: CreateListing, keyed: &Keyed) -> Result<Done<Listing>, CreateRefused> {
    let mut tx = app.database.begin(DEADLINE).await.map_err(Refused::from)?;
    let outcome = decide_and_write(&mut tx, caller, command, keyed, app.clock.now()).await;
    transaction::end(tx, outcome).await
}

async fn decide_and_write(
    tx: &mut PgConnection,
    caller: &Caller,
    command: CreateListing,
    keyed: &Keyed,
    now: DateTime<Utc>,
) -> Result<Done<Listing>, CreateRefused> {
    if let Some(first) = idempotency::first_answer(tx, Some(keyed)).await? {
        return Ok(first);
    }
    let seller = command.seller(caller)?;
    let (Held { listing, .. }, facts) = open(command, ListingId::new(), seller, now, VariantId::new);

    let token = facts.token();
    journal::write(tx, &facts, caller, now).await?;
    let kept = (AggregateKey::listing(listing.id), listing.version);
    idempotency::keep(tx, Some(keyed), StatusCode::CREATED, kept, &token).await?;
    Ok(Done::now(listing, token))
}

/// A listing at version 1, and a stock at version 1 for each variant.
pub fn open(
    command: CreateListing,
    id: ListingId,
    seller: UserId,
    now: DateTime<Utc>,
    mut new_variant: impl FnMut() -> VariantId,
) -> (Held, Facts) {
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
    let opened = |variant: &Variant| Stock { on_hand: opening.stock, ..empty_stock(&listing, variant.id, now) };
    let stock: Vec<Stock> = listing.variants.iter().map(opened).collect();
    let mut facts = Facts::default();
    for stock in &stock {
        facts.stock(StockChange::Opened { on_hand: stock.on_hand }, stock.clone());
    }
    facts.listing(ListingChange::Created {}, listing.clone());
    (Held { listing, stock }, facts)
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

#[cfg(test)]
mod tests {
    use events::Roles;
    use serde_json::json;

    use super::*;
    use crate::listings::tests::{SELLER, a_listing, caller, draft};

    #[test]
    fn a_listing_without_variants_gets_one_with_its_stock() {
        let held = a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "stock": 3 }));
        let [stock] = &held.stock[..] else { panic!("one stock") };
        assert_eq!((stock.on_hand, stock.version, stock.variant_id), (3, 1, held.listing.variants[0].id));
        assert!(held.listing.available && held.listing.variants[0].available);
        assert_eq!((held.listing.version, held.listing.seller_id), (1, SELLER));
    }

    #[test]
    fn without_stock_it_is_not_available() {
        let held = a_listing(&json!({ "title": "t", "price": { "amount": "1" }, "variants": [{ "sku": "a" }, { "sku": "b" }] }));
        assert!(!held.listing.available);
        assert_eq!(held.stock.len(), 2);
    }

    #[test]
    fn only_an_admin_makes_listings_for_others() {
        let other = UserId(uuid::Uuid::from_u128(8));
        let (draft, unknown) = draft(&json!({ "title": "t", "price": { "amount": "1" }, "seller_id": other }));
        let command = CreateListing::new(draft, unknown).unwrap();
        assert!(matches!(command.seller(&caller(SELLER, Roles::SELLER)), Err(CreateRefused::ForAnother)));
        assert_eq!(command.seller(&caller(SELLER, Roles::ADMIN)).unwrap(), other);
        assert_eq!(command.seller(&caller(other, Roles::SELLER)).unwrap(), other);
    }
}
