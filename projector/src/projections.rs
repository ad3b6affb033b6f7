//! The read models that are kept.

pub mod listing_catalog;
pub mod listing_page;
pub mod listing_search;
pub mod stock_levels;

mod postgres;

pub use self::{
    listing_catalog::ListingCatalog, listing_page::ListingPage, listing_search::ListingSearch, stock_levels::StockLevels,
};
use crate::projection::Projection as _;

/// All of them, as metrics and `projection.generations` name them.
pub const NAMES: [&str; 4] = [ListingSearch::NAME, ListingPage::NAME, ListingCatalog::NAME, StockLevels::NAME];
