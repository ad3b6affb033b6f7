//! The events of the marketplace: what happened to each aggregate, and its whole state afterwards.
//!
//! An event carries the whole state of its aggregate and that aggregate's version, so that delivery, redelivery,
//! reordering, retry, replay and rebuild are all the same operation. This crate does no I/O; its wire format is pinned
//! by snapshots, because an event in the stream can never be edited.

// Values that states are made of.
#[macro_use]
pub mod ids;
pub mod money;
pub mod roles;
pub mod timestamp;

// The aggregates: what each is called, its state, and what can happen to it.
pub mod aggregate;
pub mod listing;
pub mod stock;

// The wire format, and how events of former versions are read.
pub mod envelope;
pub mod subject;
pub mod upcast;

// How a client says which versions it has seen.
pub mod token;

pub use aggregate::{AGGREGATES, Aggregate, AggregateKey, AggregateKind, Change};
pub use envelope::{CausedBy, DecodeError, Event, Headers, Meta, NewEvent, Recorded, SystemTask};
pub use ids::{EventId, ImageId, ListingId, UserId, VariantId};
pub use listing::{Listing, ListingChange};
pub use money::{Currency, Money};
pub use roles::Roles;
pub use stock::{Stock, StockChange};
pub use timestamp::Timestamp;
pub use token::ConsistencyToken;
