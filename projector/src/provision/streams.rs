//! Provisions the streams, as `nats/*.json` describes them.

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use serde_json::{Map, Value};

use super::{differences, request_config};

/// The definitions; `nats stream add --config` takes them too.
pub const DEFINITIONS: [&str; 2] =
    [include_str!("../../../nats/LISTINGS_EVENTS.json"), include_str!("../../../nats/LISTINGS_DLQ.json")];

/// Creates or updates a stream, and checks that every setting stored.
pub async fn provision(jetstream: &jetstream::Context, definition: &str) -> anyhow::Result<String> {
    let requested: Value = serde_json::from_str(definition).context("a stream's definition is no JSON")?;
    let config = requested.as_object().context("a stream's definition is no object")?;
    let name = config.get("name").and_then(Value::as_str).context("a stream's definition has no name")?;
    let info = |what: &str| format!("STREAM.{what}.{name}");

    let found = request_config(jetstream, info("INFO"), None).await?;
    let done = match &found {
        Some(found) if differences(config, found).is_empty() => return Ok(format!("stream {name}: unchanged")),
        Some(found) => {
            // Settings that an operator added stay.
            let merged: Map<String, Value> = found.clone().into_iter().chain(config.clone()).collect();
            request_config(jetstream, info("UPDATE"), Some(&Value::Object(merged))).await?;
            "updated"
        }
        None => {
            request_config(jetstream, info("CREATE"), Some(&requested)).await?;
            "created"
        }
    };
    let stored = request_config(jetstream, info("INFO"), None).await?.with_context(|| format!("stream {name} is gone again"))?;
    let differences = differences(config, &stored);
    if !differences.is_empty() {
        bail!("the server did not take all settings of stream {name}: {}", differences.join("; "));
    }
    Ok(format!("stream {name}: {done}"))
}

#[cfg(test)]
mod tests {
    use events::subject::{DLQ_PREFIX, DLQ_STREAM, EVENT_MAX, EVENTS_PREFIX, EVENTS_STREAM};

    use super::*;

    #[test]
    fn the_definitions_are_those_of_our_streams() {
        let streams: Vec<Value> = DEFINITIONS.iter().map(|definition| serde_json::from_str(definition).unwrap()).collect();
        assert_eq!(streams[0]["name"], EVENTS_STREAM);
        assert_eq!(streams[0]["subjects"], serde_json::json!([format!("{EVENTS_PREFIX}.*.*")]));
        assert!(streams[0]["max_msg_size"].as_u64().unwrap() > EVENT_MAX as u64);
        assert_eq!(streams[1]["name"], DLQ_STREAM);
        assert_eq!(streams[1]["subjects"], serde_json::json!([format!("{DLQ_PREFIX}.*.*.*.*")]));
        assert!(streams[1]["max_msg_size"].as_u64().unwrap() > streams[0]["max_msg_size"].as_u64().unwrap());
    }
}
