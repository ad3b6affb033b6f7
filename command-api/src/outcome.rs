//! What a command leaves behind for whoever asked.

use events::{AggregateKey, ConsistencyToken, Listing};

/// It was done, or had been done before.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<T> {
    /// The aggregate as the command left it.
    pub state: T,
    /// Names what was written, so that a query can wait for it.
    pub token: ConsistencyToken,
    /// The request had been answered before, and nothing was done now.
    pub replayed: bool,
}

impl<T> Done<T> {
    pub fn now(state: T, token: ConsistencyToken) -> Self {
        Self { state, token, replayed: false }
    }
}

impl Done<Listing> {
    /// Nothing was to be done: the listing is like that already.
    pub fn already(listing: Listing) -> Self {
        let token = ConsistencyToken::of(&[(AggregateKey::listing(listing.id), listing.version)]);
        Self::now(listing, token)
    }
}
