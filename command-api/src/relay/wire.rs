//! The headers of a recorded event, as the broker's client wants them.

use std::borrow::Cow;
use std::fmt;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Reads a JSON object of text straight into the client's map.
pub fn headers(json: &str) -> serde_json::Result<HeaderMap> {
    serde_json::from_str(json).map(|Wire(headers)| headers)
}

struct Wire(HeaderMap);

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire, A::Error> {
        let mut headers = HeaderMap::new();
        while let Some((Text(name), Text(value))) = map.next_entry()? {
            // The client panics on what cannot be a header; a line break in a value would start another one.
            let name: HeaderName = name.parse().map_err(|_| A::Error::custom(format!("{name:?} is no name for a header")))?;
            let value: HeaderValue = value.parse().map_err(|_| A::Error::custom(format!("header {name} has a line break")))?;
            headers.insert(name, value);
        }
        Ok(Wire(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_nothing_can_be_smuggled_in() {
        let read = headers(r#"{"ce-id": "1", "Correlation-Id": "a \"quoted\" one"}"#).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.get("Correlation-Id").unwrap().as_str(), "a \"quoted\" one");
        for bad in [r#"{"a": "1\r\nNats-Rollup: all"}"#, r#"{"a:b": "1"}"#, "[]", r#"{"a": 1}"#] {
            assert!(headers(bad).is_err(), "{bad}");
        }
    }
}
