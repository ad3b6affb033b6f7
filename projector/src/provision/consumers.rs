//! Provisions the durable consumers: one for each generation of a projection, so that a slow store never delays another one.

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use events::{
    AggregateKind,
    subject::{EVENTS_PREFIX, EVENTS_STREAM},
};
use serde_json::{Map, Value, json};

use super::{differences, request_config};
use crate::{generations::Generation, settings::Consumers};

/// Creates or updates a consumer, and checks that every setting stored.
pub async fn provision(
    jetstream: &jetstream::Context,
    generation: &Generation,
    aggregates: &[AggregateKind],
    settings: &Consumers,
) -> anyhow::Result<String> {
    let durable = generation.name();
    let requested = config(durable, aggregates, settings);
    let info = format!("CONSUMER.INFO.{EVENTS_STREAM}.{durable}");
    let found = request_config(jetstream, info.clone(), None).await?;
    let done = match &found {
        Some(found) if differences(&requested, found).is_empty() => return Ok(format!("consumer {durable}: unchanged")),
        Some(_) => "updated",
        None => "created",
    };
    // Settings that an operator added stay, but one filter and several exclude each other.
    let mut config: Map<String, Value> = found.unwrap_or_default();
    config.retain(|name, _| !["filter_subject", "filter_subjects"].contains(&name.as_str()));
    config.extend(requested.clone());
    let request = json!({ "stream_name": EVENTS_STREAM, "config": config });
    request_config(jetstream, format!("CONSUMER.CREATE.{EVENTS_STREAM}.{durable}"), Some(&request)).await?;

    let stored = request_config(jetstream, info, None).await?.with_context(|| format!("consumer {durable} is gone again"))?;
    let differences = differences(&requested, &stored);
    if !differences.is_empty() {
        bail!("the server did not take all settings of consumer {durable}: {}", differences.join("; "));
    }
    Ok(format!("consumer {durable}: {done}"))
}

fn config(durable: &str, aggregates: &[AggregateKind], settings: &Consumers) -> Map<String, Value> {
    let filters: Vec<String> = aggregates.iter().map(|aggregate| format!("{EVENTS_PREFIX}.{aggregate}.*")).collect();
    let (filter, value) = match filters.as_slice() {
        [one] => ("filter_subject", json!(one)),
        several => ("filter_subjects", json!(several)),
    };
    let mut config = Map::new();
    for (name, value) in [
        ("durable_name", json!(durable)),
        ("deliver_policy", json!("all")),
        ("ack_policy", json!("explicit")),
        ("ack_wait", json!(u64::try_from(settings.ack_wait.as_nanos()).unwrap_or(u64::MAX))),
        // Otherwise the server skips an event silently. Attempts are counted by the projector.
        ("max_deliver", json!(-1)),
        ("max_ack_pending", json!(settings.max_ack_pending)),
        ("replay_policy", json!("instant")),
        // With any of these set otherwise events would come without their bodies, or not at all.
        ("headers_only", json!(false)),
        ("max_batch", json!(0)),
        ("max_expires", json!(0)),
        ("max_bytes", json!(0)),
        ("inactive_threshold", json!(0)),
        (filter, value),
    ] {
        config.insert(name.to_owned(), value);
    }
    config
}
