//! Versions in headers: `ETag`, `If-Match` and `If-None-Match` (RFC 9110, section 13).

use axum::response::{IntoResponseParts, ResponseParts};
use http::header::ETAG;
use http::{HeaderName, HeaderValue};

use super::header::{RequestHeader, malformed};
use crate::problem::Problem;

/// A strong entity tag, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of a version: `"7"`.
    #[must_use]
    pub fn of(version: u64) -> Self {
        Self(version.to_string())
    }

    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let quoted = ["\"", &self.0, "\""].concat();
        HeaderValue::try_from(quoted).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }
}

impl IntoResponseParts for ETag {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.headers_mut().insert(ETAG, self.header());
        Ok(parts)
    }
}

/// One tag of a list. A weak tag is valid for reads only.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

/// The versions on which a write may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Tags);

impl IfMatch {
    /// The versions that it names; `None` for `*`, which is any version. A weak tag names none, because the comparison is strong,
    /// nor does a tag that [`ETag::of`] cannot have made.
    #[must_use]
    pub fn versions(&self) -> Option<Vec<u64>> {
        let Tags::Listed(tags) = &self.0 else { return None };
        let version = |tag: &Tag| tag.opaque.parse().ok().filter(|version| !tag.weak && ETag::of(*version).0 == tag.opaque);
        Some(tags.iter().filter_map(version).collect())
    }
}

impl RequestHeader for IfMatch {
    const NAME: HeaderName = HeaderName::from_static("if-match");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        parse(&Self::NAME, values).map(Self)
    }
}

/// The versions that a client already has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfNoneMatch(Tags);

impl IfNoneMatch {
    /// Whether the client already has this version, so that the answer is 304. Weak comparison.
    #[must_use]
    pub fn has(&self, current: &ETag) -> bool {
        match &self.0 {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| tag.opaque == current.0),
        }
    }
}

impl RequestHeader for IfNoneMatch {
    const NAME: HeaderName = HeaderName::from_static("if-none-match");

    fn parse(values: &[&str]) -> Result<Self, Problem> {
        parse(&Self::NAME, values).map(Self)
    }
}

/// Parses `*` or a list of tags. Several header lines are one list.
fn parse(name: &HeaderName, values: &[&str]) -> Result<Tags, Problem> {
    let refuse = || malformed(name, "must be * or a list of entity tags such as \"7\"");
    if values == ["*"] {
        return Ok(Tags::Any);
    }
    let mut tags = Vec::new();
    for value in values {
        let mut rest = value.trim_start();
        while !rest.is_empty() {
            // RFC 9110 allows empty elements in lists.
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_start();
                continue;
            }
            let (tag, next) = one_tag(rest).ok_or_else(refuse)?;
            tags.push(tag);
            rest = next.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(refuse());
            }
        }
    }
    if tags.is_empty() { Err(refuse()) } else { Ok(Tags::Listed(tags)) }
}

fn one_tag(text: &str) -> Option<(Tag, &str)> {
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
    let (opaque, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    opaque.bytes().all(|byte| byte.is_ascii_graphic()).then(|| (Tag { weak, opaque: opaque.to_owned() }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_strong_tag() {
        assert_eq!(ETag::of(7).header(), "\"7\"");
    }

    #[test]
    fn a_write_is_allowed_on_the_version_it_names() {
        let allows = |sent: &[&str], version: u64| {
            IfMatch::parse(sent).unwrap().versions().is_none_or(|versions| versions.contains(&version))
        };
        assert!(allows(&["\"7\""], 7));
        assert!(!allows(&["\"7\""], 8));
        assert!(!allows(&["\"7\""], 77));
        assert!(allows(&["*"], 1));
        assert!(allows(&["\"6\", \"7\""], 7));
        assert!(allows(&["\"6\"", "\"7\""], 7), "two lines are one list");
        assert!(allows(&[", \"7\" ,"], 7), "empty elements do not count");
        assert!(allows(&["\"a,b\",\"7\""], 7), "a comma may stand in a tag");
        assert!(!allows(&["W/\"7\""], 7), "a weak tag permits no write");
        assert!(!allows(&["\"07\"", "\"+7\"", "\"v7\""], 7), "a tag is compared as text");
    }

    #[test]
    fn a_reader_has_the_version_whatever_its_strength() {
        let has = |sent: &[&str]| IfNoneMatch::parse(sent).unwrap().has(&ETag::of(7));
        assert!(has(&["\"7\""]) && has(&["W/\"7\""]) && has(&["*"]));
        assert!(!has(&["\"8\""]));
    }

    #[test]
    fn what_is_no_tag_is_malformed() {
        for sent in ["", ",", "7", "\"7", "7\"", "\"7\" \"8\"", "w/\"7\"", "\"7\", *", "*, \"7\"", "\"a b\""] {
            assert!(IfMatch::parse(&[sent]).is_err(), "{sent:?}");
            assert!(IfNoneMatch::parse(&[sent]).is_err(), "{sent:?}");
        }
    }
}
