//! The facts: what happened on the marketplace, and the state each aggregate was in afterwards.
//!
//! An event carries the whole state of its aggregate and that aggregate's version, so that delivery, redelivery,
//! reordering, retry, replay and rebuild are all the same operation. This crate does no I/O; its wire format is pinned
//! by snapshots, because an event in the stream can never be edited.

// What a fact is about.
pub mod ids;
pub mod money;
pub mod roles;
pub mod timestamp;

// The facts of each aggregate: its state and what can happen to it.
pub mod listing;
pub mod stock;

// How a fact travels, and how an old one is read.
pub mod envelope;
pub mod subject;
pub mod upcast;

// How a client says which facts it has seen.
pub mod token;

pub use envelope::{DecodeError, Event, Fact, Headers, Meta, Recorded};
pub use ids::{EventId, ImageId, ListingId, UserId, VariantId};
pub use listing::{Listing, ListingChange};
pub use money::{Currency, Money};
pub use roles::Roles;
pub use stock::{Stock, StockChange};
pub use subject::{Aggregate, AggregateKey};
pub use timestamp::Timestamp;
pub use token::ConsistencyToken;
