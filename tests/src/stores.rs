//! Looks into each store, behind the programs' backs.

mod journal;
mod read_models;
mod reading;
mod stream;

pub use journal::JournalEntry;
pub use read_models::Held;
pub use stream::StreamMessage;
