//! The headers `Prefer` (RFC 7240) and `Idempotency-Key`.

use std::time::Duration;

use http::HeaderName;

use super::header::{RequestHeader, malformed};
use crate::problem::Problem;

/// The longest idempotency key, in bytes.
const KEY_LIMIT: usize = 255;

/// The preferences that we support. Others are ignored, as the RFC requires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N`: how long the client will wait, in seconds.
    pub wait: Option<Duration>,
    /// `stale-ok`: the client accepts a stale answer rather than none.
    pub stale_ok: bool,
}

impl RequestHeader for Prefer {
    const NAME: HeaderName = HeaderName::from_static("prefer");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        let mut prefer = Self::default();
        for preference in values.iter().flat_map(|value| value.split(',')) {
            // Our preferences have no parameters after `;`.
            let preference = preference.split(';').next().unwrap_or_default().trim();
            let (name, value) =
                preference.split_once('=').map_or((preference, None), |(name, value)| (name.trim(), Some(value.trim())));
            if name.eq_ignore_ascii_case("stale-ok") {
                prefer.stale_ok = true;
            } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                // The first one counts.
                let seconds = value.map(|value| value.trim_matches('"')).and_then(whole_seconds);
                prefer.wait =
                    Some(seconds.ok_or_else(|| malformed(&Self::NAME, "must give wait in whole seconds, such as wait=2"))?);
            }
        }
        Ok(prefer)
    }
}

fn whole_seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse::<u32>().ok()).flatten().map(|seconds| Duration::from_secs(seconds.into()))
}

/// A client's key for one request, with which a repeated request is done only once. The quoted and the bare form are the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RequestHeader for IdempotencyKey {
    const NAME: HeaderName = HeaderName::from_static("idempotency-key");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        let [value] = values else { return Err(malformed(&Self::NAME, "must be sent once")) };
        let key = match value.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').and_then(unescape),
            None => (!value.contains('"')).then(|| (*value).to_owned()),
        };
        key.filter(|key| (1..=KEY_LIMIT).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
            .map(Self)
            .ok_or_else(|| malformed(&Self::NAME, "must be 1 to 255 visible characters, in quotes or bare"))
    }
}

/// Decodes a structured-field string, in which only the quote and the backslash are escaped.
fn unescape(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => key.push(letters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            other => key.push(other),
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_preferences_are_heard_and_others_ignored() {
        let prefer = |sent: &[&str]| Prefer::parse(sent).unwrap();
        assert_eq!(prefer(&["wait=2, stale-ok"]), Prefer { wait: Some(Duration::from_secs(2)), stale_ok: true });
        assert_eq!(prefer(&["Stale-OK", "Wait = \"10\""]), Prefer { wait: Some(Duration::from_secs(10)), stale_ok: true });
        assert_eq!(prefer(&["return=minimal; x=1, respond-async"]), Prefer::default());
        assert_eq!(prefer(&["wait=0"]).wait, Some(Duration::ZERO));
        assert_eq!(prefer(&["wait=1, wait=9"]).wait, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_wait_that_is_no_number_is_malformed() {
        for sent in ["wait", "wait=", "wait=soon", "wait=-1", "wait=+1", "wait=1.5", "wait=99999999999"] {
            assert!(Prefer::parse(&[sent]).is_err(), "{sent:?}");
        }
    }

    #[test]
    fn a_key_may_be_quoted_or_bare() {
        let key = |sent: &str| IdempotencyKey::parse(&[sent]).map(|key| key.0);
        assert_eq!(key("8e03").unwrap(), "8e03");
        assert_eq!(key("\"8e03\"").unwrap(), "8e03");
        assert_eq!(key(r#""a\"b\\c""#).unwrap(), r#"a"b\c"#);
        assert_eq!(key(&"k".repeat(255)).unwrap().len(), 255);
    }

    #[test]
    fn what_cannot_be_a_key_is_malformed() {
        let long = "k".repeat(256);
        for sent in ["", "\"\"", "\"", "a b", "\"a", "a\"", "\"a\"b\"", "\"a\\b\"", "\"a\\\"", &long] {
            assert!(IdempotencyKey::parse(&[sent]).is_err(), "{sent:?}");
        }
        assert!(IdempotencyKey::parse(&["a", "b"]).is_err(), "two keys name two requests");
    }
}
