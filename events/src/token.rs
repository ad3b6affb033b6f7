//! The consistency token: which versions a client has seen, so that a query can wait for them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Aggregate as _, AggregateKey, AggregateKind, Listing};

/// A token names at most this many aggregates (PROTOCOL Q1).
pub const TOKEN_ENTRIES: usize = 8;
/// Longer tokens are refused unread, in characters; eight entries take about 600.
const TOKEN_LENGTH: usize = 1024;

/// Versions that a client has seen. Unsigned: it can only make its bearer wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyToken(Vec<(AggregateKey, u64)>);

#[derive(Serialize, Deserialize)]
struct Entry(AggregateKind, Uuid, u64);

/// Not a token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a token that this service gave")]
pub struct MalformedToken;

impl ConsistencyToken {
    /// A token for what one command wrote. One that touched more than a token holds names the first listing only.
    #[must_use]
    pub fn of(written: &[(AggregateKey, u64)]) -> Self {
        if written.len() <= TOKEN_ENTRIES {
            return Self(written.to_vec());
        }
        Self(written.iter().find(|(key, _)| key.kind == Listing::KIND).into_iter().copied().collect())
    }

    /// What the client has seen.
    #[must_use]
    pub fn entries(&self) -> &[(AggregateKey, u64)] {
        &self.0
    }

    /// The text that clients send back as they got it.
    #[must_use]
    pub fn encode(&self) -> String {
        let entries: Vec<_> = self.0.iter().map(|(key, version)| Entry(key.kind, key.id, *version)).collect();
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&entries).unwrap_or_default())
    }

    /// Reads a token; every field is checked.
    pub fn decode(text: &str) -> Result<Self, MalformedToken> {
        if text.len() > TOKEN_LENGTH {
            return Err(MalformedToken);
        }
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedToken)?;
        let entries: Vec<Entry> = serde_json::from_slice(&json).map_err(|_| MalformedToken)?;
        if entries.len() > TOKEN_ENTRIES || entries.iter().any(|Entry(.., version)| *version == 0 || *version > i64::MAX as u64) {
            return Err(MalformedToken);
        }
        Ok(Self(entries.into_iter().map(|Entry(kind, id, version)| (AggregateKey { kind, id }, version)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        let token = ConsistencyToken::of(&[(AggregateKey::listing(Uuid::now_v7()), 3), (AggregateKey::stock(Uuid::now_v7()), 1)]);
        assert_eq!(ConsistencyToken::decode(&token.encode()), Ok(token));
    }

    #[test]
    fn a_large_command_names_its_listing_only() {
        let listing = (AggregateKey::listing(Uuid::now_v7()), 1);
        let mut written: Vec<_> = (0..8).map(|_| (AggregateKey::stock(Uuid::now_v7()), 1)).collect();
        written.push(listing);
        assert_eq!(ConsistencyToken::of(&written).entries(), &[listing]);
    }

    #[test]
    fn rubbish_is_refused() {
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let id = Uuid::now_v7();
        for bad in [
            "%".to_owned(),
            encode("{}"),
            encode(&format!(r#"[["cat","{id}",1]]"#)),
            encode(&format!(r#"[["listing","{id}",0]]"#)),
            encode(&format!(r#"[["listing","{id}",18446744073709551615]]"#)),
            encode(&format!(r#"[["listing","{id}",-1]]"#)),
            encode(&format!("[{}]", vec![format!(r#"["stock","{id}",1]"#); 9].join(","))),
            "A".repeat(5000),
        ] {
            assert_eq!(ConsistencyToken::decode(&bad), Err(MalformedToken), "{bad}");
        }
    }
}
