//! Listings: what sellers offer, with their variants.

// 1. What a client sends is judged.
pub mod content;
pub mod draft;
mod merge_patch;
mod rules;

// 2. The verbs.
pub mod change_status;
pub mod create_batch;
pub mod create_listing;
pub mod delete_listing;
pub mod patch_listing;
pub mod replace_listing;

// 3. What they share: what is held of a listing, its rows, and how one is revised.
pub mod held;
mod revise;
pub mod rows;

#[cfg(test)]
pub mod tests;
