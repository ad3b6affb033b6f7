//! Bearer tokens (JWT, EdDSA): verified against a key set, and signed for development.
//!
//! A token that cannot be verified is answered 401. Only while no key set was ever read, so that nothing can be checked, the
//! answer is 503: the token may be valid. Which roles exist is the program's business: a [`TokenBearer`] has role names only.

mod extract;
mod keys;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use extract::{TokenBearer, Visitor};
pub use keys::JwksSource;
pub use sign::Signer;
pub use verify::{BearerError, Verifier};
