//! Cursors: an opaque text that continues a list or a search after the last item of a page.
//!
//! Base64url of JSON. It is not signed: it grants no access, and every field is checked.

use std::hash::Hasher as _;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fnv::FnvHasher;
use serde::{Deserialize, Serialize};
use service::problem::{Kind, Refusal};

/// Longest cursor that is decoded, in characters. A point in time takes a few hundred per shard.
const LONGEST: usize = 16 * 1024;
/// Sort values and the id.
const KEYS_MAX: usize = 4;
/// The longest sort value is a title of 300 characters, in bytes.
const KEY_LONGEST: usize = 2048;
const POINT_IN_TIME_LONGEST: usize = 8 * 1024;

/// Which store answered. Stores order listings differently, so a cursor continues in the same store only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A list, from Postgres.
    List,
    /// A search, from OpenSearch.
    Search,
    /// A search, from Postgres while OpenSearch is unavailable.
    Catalog,
}

/// How loosely a search matches words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Every word must match as it is.
    Strict,
    /// Any word may match, also with a misspelling.
    Loose,
}

/// The position after the last item of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    #[serde(rename = "b")]
    pub backend: Backend,
    #[serde(rename = "s")]
    pub stage: Stage,
    /// The last item's sort values as text, its id last. The backend checks their form.
    #[serde(rename = "k")]
    pub keys: Vec<String>,
    /// The [`fingerprint`] of the question that it continues.
    #[serde(rename = "q")]
    pub fingerprint: String,
    /// The id of OpenSearch's point in time; absent on the first page.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<String>,
}

/// Identifies a question, so that a cursor is refused with other words, filters or another order. FNV-1a, which is the same in
/// every process and build: any of them continues a page of another.
pub fn fingerprint(criteria: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut hasher = FnvHasher::default();
    hasher.write(&serde_json::to_vec(criteria)?);
    Ok(format!("{:016x}", hasher.finish()))
}

impl Cursor {
    /// The text that clients send back unchanged.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json))
    }

    /// Decodes a cursor that continues the question with this fingerprint.
    pub fn decode(text: &str, fingerprint: &str) -> Result<Self, CursorError> {
        let cursor = Self::parse(text).ok_or(CursorError::Unreadable)?;
        if cursor.fingerprint == fingerprint { Ok(cursor) } else { Err(CursorError::OtherQuestion) }
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let cursor: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let keys = !cursor.keys.is_empty()
            && cursor.keys.len() <= KEYS_MAX
            && cursor.keys.iter().all(|key| key.len() <= KEY_LONGEST && !key.contains('\0'));
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
        let point_in_time = cursor
            .point_in_time
            .as_ref()
            .is_none_or(|id| !id.is_empty() && id.len() <= POINT_IN_TIME_LONGEST && id.bytes().all(is_base64));
        (keys && point_in_time).then_some(cursor)
    }

    /// Refuses a cursor of another backend than the one that answers now.
    pub fn continues(&self, backend: Backend) -> Result<(), CursorError> {
        if self.backend == backend { Ok(()) } else { Err(CursorError::OtherBackend) }
    }
}

/// Why a cursor does not continue a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("The parameter cursor is not one that this service issued: start again without it")]
    Unreadable,
    #[error("The parameter cursor belongs to other words, filters or another order: start again without it")]
    OtherQuestion,
    #[error("The parameter cursor belongs to answers from another store than the one that answers now: start again without it")]
    OtherBackend,
}

impl Refusal for CursorError {
    fn kind(&self) -> Kind {
        Kind::Malformed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn a_cursor() -> Cursor {
        Cursor {
            backend: Backend::Search,
            stage: Stage::Strict,
            keys: vec!["12.345".to_owned(), "0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".to_owned()],
            fingerprint: fingerprint(&("headphones", 1)).unwrap(),
            point_in_time: Some("abc_-+/=".to_owned()),
        }
    }

    #[test]
    fn a_cursor_reads_back() {
        let cursor = a_cursor();
        assert_eq!(Cursor::decode(&cursor.encode().unwrap(), &cursor.fingerprint).unwrap(), cursor);
    }

    #[test]
    fn it_continues_only_what_it_began() {
        let text = a_cursor().encode().unwrap();
        let other = Cursor::decode(&text, &fingerprint(&("headphones", 2)).unwrap()).unwrap_err();
        assert_eq!(other, CursorError::OtherQuestion);
        assert_eq!(a_cursor().continues(Backend::Catalog), Err(CursorError::OtherBackend));
        assert!(a_cursor().continues(Backend::Search).is_ok());
    }

    #[test]
    fn every_field_is_checked() {
        let good = serde_json::to_value(a_cursor()).unwrap();
        let with = |pointer: &str, value: serde_json::Value| {
            let mut bad = good.clone();
            bad[pointer] = value;
            URL_SAFE_NO_PAD.encode(bad.to_string())
        };
        for bad in [
            String::new(),
            "%".to_owned(),
            URL_SAFE_NO_PAD.encode("{}"),
            URL_SAFE_NO_PAD.encode("[]"),
            "A".repeat(LONGEST + 1),
            with("b", json!("redis")),
            with("s", json!(1)),
            with("k", json!([])),
            with("k", json!([1, 2])),
            with("k", json!(["a", "b", "c", "d", "e"])),
            with("k", json!(["x".repeat(KEY_LONGEST + 1)])),
            with("k", json!(["\0"])),
            with("q", json!("0")),
            with("p", json!("")),
            with("p", json!("{\"query\":1}")),
            with("p", json!("x".repeat(POINT_IN_TIME_LONGEST + 1))),
            with("more", json!(1)),
        ] {
            assert!(Cursor::decode(&bad, &a_cursor().fingerprint).is_err(), "{bad:.60}");
        }
    }
}
