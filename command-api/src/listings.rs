//! Listings: what sellers offer, with their variants.

// 1. A draft of a client is validated.
pub mod content;
pub mod draft;
mod merge_patch;
mod offer;
mod place;
mod words;

// 2. The verbs.
pub mod change_status;
pub mod create_batch;
pub mod create_listing;
pub mod delete_listing;
pub mod patch_listing;
pub mod replace_listing;

// 3. What the verbs share, and what commands on stock call.
pub mod availability;
mod revise;
mod with_stock;

#[cfg(test)]
pub mod tests;
