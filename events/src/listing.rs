//! A listing: what a seller offers, as the API shows it and as every event of it carries it.
//!
//! Fields that explain themselves have no comment; API.md in `docs/` gives their limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Aggregate, AggregateKey, AggregateKind, Change, ImageId, ListingId, Money, Timestamp, UserId, VariantId,
    aggregate::Description,
};

/// The whole state of a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    pub id: ListingId,
    /// Counts every change of this listing from 1; its `ETag`.
    pub version: u64,
    pub status: Status,
    pub visibility: Visibility,
    pub seller_id: UserId,
    pub title: String,
    pub description: String,
    /// A path such as `electronics/audio/headphones`.
    pub category: Option<String>,
    pub price: Money,
    pub condition: Condition,
    pub brand: Option<String>,
    /// A BCP 47 tag such as `sr-Latn`.
    pub language: Option<String>,
    pub attributes: Vec<Attribute>,
    pub tags: Vec<String>,
    pub location: Option<Location>,
    pub images: Vec<Image>,
    pub variants: Vec<Variant>,
    /// Whether at least one variant is available.
    pub available: bool,
    /// The seller's own name for it, unique among the seller's listings that are not deleted.
    pub external_id: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When it was first shown to buyers.
    pub published_at: Option<Timestamp>,
}

/// Status of a listing in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Draft,
    Active,
    Paused,
    Archived,
    Sold,
}

/// Who may find a listing that is active or sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everyone, by search as well.
    Public,
    /// Everyone who has its address.
    Unlisted,
    /// Its seller.
    Private,
}

/// Condition of the goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    New,
    Used,
    Refurbished,
}

macro_rules! names {
    ($($type:ident { $($variant:ident = $name:literal),* $(,)? })*) => {$(
        impl $type {
            /// Every value there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire, in columns and in filters.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Reads a name; `None` for an unknown one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

names! {
    Status { Draft = "draft", Active = "active", Paused = "paused", Archived = "archived", Sold = "sold" }
    Visibility { Public = "public", Unlisted = "unlisted", Private = "private" }
    Condition { New = "new", Used = "used", Refurbished = "refurbished" }
}

impl Listing {
    /// Whether everyone who has its id may see it. Otherwise only its seller and admins may.
    #[must_use]
    pub fn is_shown_to_everyone(&self) -> bool {
        self.visibility.shows_to_everyone(self.status)
    }
}

impl Visibility {
    /// Whether everyone who has the id of a listing of this visibility and `status` may see it.
    #[must_use]
    pub fn shows_to_everyone(self, status: Status) -> bool {
        match status {
            Status::Active | Status::Sold => self != Self::Private,
            Status::Draft | Status::Paused | Status::Archived => false,
        }
    }
}

/// One property of the goods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attribute {
    pub name: String,
    pub value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Where the goods are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Location {
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    pub city: Option<String>,
    pub address: Option<String>,
    pub point: Option<Point>,
}

/// A place on earth, WGS 84, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    #[schema(minimum = -90, maximum = 90)]
    pub lat: f64,
    #[schema(minimum = -180, maximum = 180)]
    pub lon: f64,
}

/// Rounds degrees to a billionth, a tenth of a millimetre on the ground. Stores compute with squares of coordinates, and the square
/// of a smaller number underflows.
#[must_use]
pub fn degrees(degrees: f64) -> f64 {
    const PER_DEGREE: f64 = 1e9;
    (degrees * PER_DEGREE).round() / PER_DEGREE
}

/// A picture. Its index in the array is its `position`; the first one is `primary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    pub id: ImageId,
    pub url: String,
    pub content_type: Option<String>,
    /// In pixels.
    pub width: Option<u32>,
    /// In pixels.
    pub height: Option<u32>,
    pub position: u32,
    pub primary: bool,
    pub alt: Option<String>,
}

/// A variant of a listing, such as a size or a colour. A plain listing has exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Variant {
    pub id: VariantId,
    pub sku: Option<String>,
    pub label: Option<String>,
    /// Overrides the listing's price.
    pub price: Option<Money>,
    /// Whether its stock has pieces left.
    pub available: bool,
}

/// A change of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ListingChange {
    /// The listing was created, as a draft or for sale.
    #[serde(rename = "listing.created.v1")]
    Created {},
    /// The seller changed these fields.
    #[serde(rename = "listing.updated.v1")]
    Updated { fields: Vec<String> },
    /// The listing went on sale.
    #[serde(rename = "listing.published.v1")]
    Published {},
    /// The listing was taken off sale; it can be published again.
    #[serde(rename = "listing.paused.v1")]
    Paused {},
    /// The listing was taken off sale for good.
    #[serde(rename = "listing.archived.v1")]
    Archived {},
    /// The listing was deleted. Its id is never used again.
    #[serde(rename = "listing.deleted.v1")]
    Deleted {},
    /// The available stock of one variant went from or to zero.
    #[serde(rename = "listing.availability_changed.v1")]
    AvailabilityChanged { variant_id: VariantId, available: bool },
}

impl Aggregate for Listing {
    const KIND: AggregateKind = AggregateKind::new(&Description {
        name: "listing",
        event_types: &[
            "listing.created.v1",
            "listing.updated.v1",
            "listing.published.v1",
            "listing.paused.v1",
            "listing.archived.v1",
            "listing.deleted.v1",
            "listing.availability_changed.v1",
        ],
        upcasters: &[],
    });

    type Change = ListingChange;

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl AggregateKey {
    /// The key of a listing.
    #[must_use]
    pub fn listing(id: impl Into<Uuid>) -> Self {
        Self::of::<Listing>(id)
    }
}

impl Change for ListingChange {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Created {} => "listing.created.v1",
            Self::Updated { .. } => "listing.updated.v1",
            Self::Published {} => "listing.published.v1",
            Self::Paused {} => "listing.paused.v1",
            Self::Archived {} => "listing.archived.v1",
            Self::Deleted {} => "listing.deleted.v1",
            Self::AvailabilityChanged { .. } => "listing.availability_changed.v1",
        }
    }
}
