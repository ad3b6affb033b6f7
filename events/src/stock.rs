//! The stock of one variant: an aggregate of its own, so that a hot item does not rewrite its listing on each sale.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Aggregate, AggregateKey, AggregateKind, Change, ListingId, Timestamp, UserId, VariantId, aggregate::Description};

/// Largest number of pieces in `on_hand` and in one movement. A larger number is a typing mistake, so it is refused.
pub const PIECES_LIMIT: i64 = 1_000_000_000;

/// The whole state of a variant's stock, as events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    pub variant_id: VariantId,
    /// The listing that the variant belongs to. It is repeated here because a projection takes no field from another aggregate
    /// (PROTOCOL W9).
    pub listing_id: ListingId,
    pub seller_id: UserId,
    /// Pieces in stock, reserved ones included.
    pub on_hand: i64,
    /// Pieces reserved for buyers.
    pub reserved: i64,
    /// At or below this many available pieces the stock counts as low.
    pub low_stock_threshold: Option<i64>,
    /// Counts every change of this stock from 1; its `ETag`.
    pub version: u64,
    pub updated_at: Timestamp,
}

impl Stock {
    /// Pieces that can be bought now. Never negative.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.reserved
    }
}

/// A stock as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StockLevel {
    pub variant_id: VariantId,
    pub listing_id: ListingId,
    pub on_hand: i64,
    pub reserved: i64,
    /// `on_hand − reserved`.
    pub available: i64,
    pub low_stock_threshold: Option<i64>,
    pub version: u64,
}

impl From<&Stock> for StockLevel {
    fn from(stock: &Stock) -> Self {
        Self {
            variant_id: stock.variant_id,
            listing_id: stock.listing_id,
            on_hand: stock.on_hand,
            reserved: stock.reserved,
            available: stock.available(),
            low_stock_threshold: stock.low_stock_threshold,
            version: stock.version,
        }
    }
}

/// A change of a stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum StockChange {
    /// The variant was created, with this many pieces.
    #[serde(rename = "stock.opened.v1")]
    Opened { on_hand: i64 },
    /// The stock was set to a count, or its threshold was set. An absent field did not change.
    #[serde(rename = "stock.set.v1")]
    Set {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_hand: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        low_stock_threshold: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Pieces were added, removed or corrected.
    #[serde(rename = "stock.moved.v1")]
    Moved {
        movement: Movement,
        quantity: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
    /// The variant or its listing was deleted.
    #[serde(rename = "stock.removed.v1")]
    Removed {},
}

impl Aggregate for Stock {
    const KIND: AggregateKind = AggregateKind::new(&Description {
        name: "stock",
        event_types: &["stock.opened.v1", "stock.set.v1", "stock.moved.v1", "stock.removed.v1"],
        upcasters: &[],
    });

    type Change = StockChange;

    fn id(&self) -> Uuid {
        self.variant_id.0
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl AggregateKey {
    /// The key of a variant's stock.
    #[must_use]
    pub fn stock(id: impl Into<Uuid>) -> Self {
        Self::of::<Stock>(id)
    }
}

impl Change for StockChange {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "stock.opened.v1",
            Self::Set { .. } => "stock.set.v1",
            Self::Moved { .. } => "stock.moved.v1",
            Self::Removed {} => "stock.removed.v1",
        }
    }
}

/// Direction of a movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    In,
    Out,
    /// A correction. The only movement whose quantity may be negative.
    Adjustment,
}
