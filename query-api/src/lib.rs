//! The read side of the marketplace: answers from the projections alone. One file per question.

// 1. A question arrives.
pub mod http;

// 2. It is answered, for those who may see it.
pub mod cursor;
pub mod filters;
pub mod get_listing;
pub mod get_stock;
pub mod list_listings;
pub mod search;
pub mod visibility;

// 3. From this process, or by a store that has what the caller has seen.
pub mod asked;
pub mod consistency;
pub mod invalidations;
pub mod page;
pub mod page_cache;
pub mod recent;

// 4. The stores, any of which may be away.
pub mod breaker;
pub mod catalog;
pub mod database;
pub mod dependency;
pub mod generations;
pub mod opensearch;
pub mod redis_pages;

// 5. The process.
pub mod app;
pub mod metrics;
pub mod serve;
pub mod settings;
