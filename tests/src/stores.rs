//! Reads the stores: each of them directly, bypassing the programs, and all committed data through query-api.

mod journal;
mod read_models;
mod reading;
mod stream;

pub use journal::JournalEntry;
pub use read_models::Held;
pub use stream::StreamMessage;
