//! What is stored of each read model, once, for its writer (projector) and its reader (query-api). No I/O.

// Show one listing, and its stock.
pub mod listing_page;

// A seller's own listings; search when OpenSearch is away.
pub mod listing_catalog;

// How many are left.
pub mod stock_levels;

// Find listings.
pub mod listing_search;

// Which generation of each of them is served.
pub mod generations;
