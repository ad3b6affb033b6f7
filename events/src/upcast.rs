//! Upcasters: each rewrites the body of one former event type to the next version of that type.
//!
//! Adding an optional field needs no upcaster. Any other change of an event gives it a new type (`listing.created.v2`), an
//! upcaster in its aggregate's description, and keeps the old snapshot.

use bytes::Bytes;
use serde_json::Value;

/// Rewrites a whole body, its `change.type` included.
pub type Upcaster = fn(Value) -> Value;

/// Splits `listing.created.v1` into `listing.created` and 1; `None` for a text without a version.
#[must_use]
pub fn major_version(event_type: &str) -> Option<(&str, u32)> {
    let (stem, version) = event_type.rsplit_once(".v")?;
    Some((stem, version.parse().ok().filter(|_| version.bytes().all(|byte| byte.is_ascii_digit()))?))
}

/// The body in its current version; the same bytes, not copied, if no upcaster applies.
///
/// # Errors
/// If the body of a former type is not JSON.
pub fn to_current(event_type: &str, body: Bytes, upcasters: &[(&str, Upcaster)]) -> Result<Bytes, serde_json::Error> {
    let step = |event_type: &str| upcasters.iter().find(|(former, _)| *former == event_type).map(|(_, upcast)| upcast);
    let Some(mut upcast) = step(event_type) else {
        return Ok(body);
    };
    let mut value: Value = serde_json::from_slice(&body)?;
    loop {
        value = upcast(value);
        match value["change"]["type"].as_str().and_then(step) {
            Some(next) => upcast = next,
            None => return Ok(serde_json::to_vec(&value)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &[(&str, Upcaster)] = &[
        ("cat.named.v1", |mut body| {
            body["change"] = serde_json::json!({"type": "cat.named.v2", "names": [body["change"]["name"]]});
            body
        }),
        ("cat.named.v2", |mut body| {
            body["change"]["type"] = "cat.named.v3".into();
            body["change"]["language"] = "en".into();
            body
        }),
    ];

    #[test]
    fn an_old_event_passes_every_later_version() {
        let old = Bytes::from_static(br#"{"change":{"type":"cat.named.v1","name":"Tom"},"state":null}"#);
        let new: Value = serde_json::from_slice(&to_current("cat.named.v1", old, CHAIN).unwrap()).unwrap();
        assert_eq!(new["change"], serde_json::json!({"type": "cat.named.v3", "names": ["Tom"], "language": "en"}));
    }

    #[test]
    fn a_current_event_is_not_touched() {
        let body = Bytes::from_static(b"not even json");
        assert_eq!(to_current("cat.named.v3", body.clone(), CHAIN).unwrap().as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_type_ends_with_its_major_version() {
        assert_eq!(major_version("listing.created.v12"), Some(("listing.created", 12)));
        for none in ["listing.created", "listing.created.v", "listing.created.v+1", "listing.created.v-1", ""] {
            assert_eq!(major_version(none), None, "{none}");
        }
    }
}
