//! What is stored of each read model, once, for its writer (projector) and its reader (query-api). No I/O.

// One listing and its stock.
pub mod listing_page;

// A seller's own listings; searches while OpenSearch is unavailable.
pub mod listing_catalog;

// How many pieces are left.
pub mod stock_levels;

// Searches.
pub mod listing_search;

// Which generation of each of them is served.
pub mod generations;
