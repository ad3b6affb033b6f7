//! Who calls: bearer tokens (JWT, EdDSA), verified against a key set, and made for development.
//!
//! Whatever cannot be believed is 401. Only when no key set was ever had, and nothing could therefore be checked, it is 503:
//! the caller's token may be perfectly good.

mod caller;
mod extract;
mod keys;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use caller::{Caller, Roles};
pub use extract::{Needs, Only, Visitor};
pub use keys::JwksSource;
pub use sign::Signer;
pub use verify::{BearerError, Verifier};
