//! `stock_levels` answers: how many pieces are left, and of what are few left? Stored in Postgres, `projection.stock_levels`, one
//! row per variant.

use chrono::{DateTime, Utc};
use events::{ListingId, Stock, UserId, VariantId, stock::StockLevel};
use uuid::Uuid;

/// The projection's name.
pub const NAME: &str = "stock_levels";

/// A row of `projection.stock_levels`. A removed stock leaves a tombstone, so that an older event cannot
/// bring it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevelRow {
    pub variant_id: Uuid,
    pub version: i64,
    pub removed: bool,
    pub listing_id: Option<Uuid>,
    pub seller_id: Option<Uuid>,
    pub on_hand: Option<i64>,
    pub reserved: Option<i64>,
    pub low_stock_threshold: Option<i64>,
    pub updated_at: Option<DateTime<Utc>>,
}

impl StockLevelRow {
    /// The row of a stock that exists.
    #[must_use]
    pub fn of(stock: &Stock) -> Self {
        Self {
            variant_id: stock.variant_id.into(),
            version: stock.version.cast_signed(),
            removed: false,
            listing_id: Some(stock.listing_id.into()),
            seller_id: Some(stock.seller_id.into()),
            on_hand: Some(stock.on_hand),
            reserved: Some(stock.reserved),
            low_stock_threshold: stock.low_stock_threshold,
            updated_at: Some(stock.updated_at.into()),
        }
    }

    /// The row of a removed stock.
    #[must_use]
    pub fn tombstone(id: VariantId, version: u64) -> Self {
        Self {
            variant_id: id.into(),
            version: version.cast_signed(),
            removed: true,
            listing_id: None,
            seller_id: None,
            on_hand: None,
            reserved: None,
            low_stock_threshold: None,
            updated_at: None,
        }
    }

    /// The stock of this row; `None` for a tombstone.
    #[must_use]
    pub fn stock(&self) -> Option<Stock> {
        Some(Stock {
            variant_id: VariantId(self.variant_id),
            listing_id: ListingId(self.listing_id?),
            seller_id: UserId(self.seller_id?),
            on_hand: self.on_hand?,
            reserved: self.reserved?,
            low_stock_threshold: self.low_stock_threshold,
            version: self.version.cast_unsigned(),
            updated_at: self.updated_at?.into(),
        })
    }

    /// The stock as clients see it; `None` for a tombstone.
    #[must_use]
    pub fn level(&self) -> Option<StockLevel> {
        self.stock().as_ref().map(StockLevel::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_the_stock_back_and_a_tombstone_nothing() {
        let stock = Stock {
            variant_id: VariantId(Uuid::from_u128(7)),
            listing_id: ListingId(Uuid::from_u128(1)),
            seller_id: UserId(Uuid::from_u128(3)),
            on_hand: 12,
            reserved: 2,
            low_stock_threshold: Some(5),
            version: 4,
            updated_at: "2026-11-21T09:30:00Z".parse().unwrap(),
        };
        assert_eq!(StockLevelRow::of(&stock).stock(), Some(stock));
        assert_eq!(StockLevelRow::tombstone(VariantId(Uuid::from_u128(7)), 5).level(), None);
    }
}
