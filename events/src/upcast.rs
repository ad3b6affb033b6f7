//! Reads events of former versions: each upcaster turns a body of one retired type into its successor's.
//!
//! Adding an optional field needs none of this. Any other change of an event gives it a new type (`listing.created.v2`), an
//! entry here, and keeps the old snapshot.

use std::borrow::Cow;

use serde_json::Value;

/// Rewrites a whole body, its `change.type` included.
pub type Upcaster = fn(Value) -> Value;

/// Retired types and what brings each one step forward. Empty as long as every type is in its first version.
pub const UPCASTERS: &[(&str, Upcaster)] = &[];

/// The body in its current version, unchanged and uncopied when it is that already.
///
/// # Errors
/// When the body of a retired type is not JSON.
pub fn to_current<'a>(
    event_type: &str,
    body: &'a [u8],
    upcasters: &[(&str, Upcaster)],
) -> Result<Cow<'a, [u8]>, serde_json::Error> {
    let step = |event_type: &str| upcasters.iter().find(|(retired, _)| *retired == event_type).map(|(_, upcast)| upcast);
    let Some(mut upcast) = step(event_type) else {
        return Ok(Cow::Borrowed(body));
    };
    let mut value: Value = serde_json::from_slice(body)?;
    loop {
        value = upcast(value);
        match value["change"]["type"].as_str().and_then(step) {
            Some(next) => upcast = next,
            None => return Ok(Cow::Owned(serde_json::to_vec(&value)?)),
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
    fn an_old_event_goes_through_every_later_version() {
        let old = br#"{"change":{"type":"cat.named.v1","name":"Tom"},"state":null}"#;
        let new: Value = serde_json::from_slice(&to_current("cat.named.v1", old, CHAIN).unwrap()).unwrap();
        assert_eq!(new["change"], serde_json::json!({"type": "cat.named.v3", "names": ["Tom"], "language": "en"}));
    }

    #[test]
    fn a_current_event_is_not_touched() {
        assert!(matches!(to_current("cat.named.v3", b"not even json", CHAIN), Ok(Cow::Borrowed(_))));
    }
}
