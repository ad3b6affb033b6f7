//! The state tables of schema `command`, a file for each kind of aggregate: how its rows are read, locked and written.
//!
//! Stock is locked before listings, each by id (PROTOCOL W1).

pub mod listings;
pub mod stock;
