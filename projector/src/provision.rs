//! `projector provision`: makes streams, durable consumers, index template, index and alias, or brings them up to date.
//!
//! It can be run again at any time. Every setting is read back, because a server that does not know a setting accepts and drops it.
//! A setting that was dropped is an error, and so is a change that needs a rebuild.

mod consumers;
mod streams;

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{connection::State, jetstream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    connections::{self, StoreClients},
    generations::{self, Generation},
    projections::ALL,
    settings::ProvisionSettings,
};

/// How long servers may take that are started at the same time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

pub async fn provision(settings: &ProvisionSettings) -> anyhow::Result<()> {
    let stores = &settings.stores;
    let jetstream = connections::nats(&stores.nats).await?;
    let connected = async {
        while jetstream.client().connection_state() != State::Connected {
            sleep(CONNECT_AGAIN).await;
        }
    };
    timeout(CONNECT_TIMEOUT, connected).await.context("the broker at NATS_URL does not answer")?;
    connections::check_broker(&jetstream)?;
    for definition in streams::DEFINITIONS {
        print_line(&streams::provision(&jetstream, definition).await?)?;
    }

    let clients = StoreClients::open(stores, connections::database(&stores.database)?)?;
    let generations = generations::not_retired(&clients.db)
        .await
        .context("the generations cannot be read (`command-api migrate` makes them)")?;
    for projection in ALL {
        let own = generations.iter().filter(|generation| generation.projection == projection.name);
        let own: Vec<Generation> = own.cloned().collect();
        // The store first: as soon as the durable consumer exists, running projectors write.
        for line in (projection.provision)(&clients, &own).await? {
            print_line(&line)?;
        }
        for generation in &own {
            print_line(&consumers::provision(&jetstream, generation, projection.aggregates, &settings.consumers).await?)?;
        }
    }

    match connections::eviction_policy(&clients.redis).await {
        Ok(policy) if connections::evicts_tombstones_first(&policy) => {
            bail!(
                "Redis maxmemory-policy {policy} evicts keys that have a TTL first, which includes tombstones; use allkeys-lru or noeviction"
            )
        }
        Ok(policy) => print_line(&format!("Redis: maxmemory-policy {policy}"))?,
        Err(error) => print_line(&format!("Redis: its maxmemory-policy cannot be read ({error}); it must not be volatile-*"))?,
    }
    Ok(())
}

/// Prints a line. A closed standard output is an error, not a panic.
fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// An answer of the broker's API.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BrokerApiAnswer {
    Error { error: BrokerApiError },
    Ok { config: Map<String, Value> },
}

#[derive(Debug, Deserialize)]
struct BrokerApiError {
    #[serde(default)]
    err_code: u32,
    description: String,
}

/// Sends a request about something that has a configuration to the broker's API; `None` if it does not exist. A request for information
/// must not have a body.
async fn request_config(
    jetstream: &jetstream::Context,
    subject: String,
    request: Option<&Value>,
) -> anyhow::Result<Option<Map<String, Value>>> {
    const API: &str = "$JS.API";
    const STREAM_NOT_FOUND: u32 = 10_059;
    const CONSUMER_NOT_FOUND: u32 = 10_014;
    let body = request.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let answer = jetstream.client().request(format!("{API}.{subject}"), body.into()).await;
    let answer = answer.with_context(|| format!("{subject} was not answered"))?;
    match serde_json::from_slice(&answer.payload).with_context(|| format!("the answer to {subject} cannot be read"))? {
        BrokerApiAnswer::Ok { config } => Ok(Some(config)),
        BrokerApiAnswer::Error { error } if [STREAM_NOT_FOUND, CONSUMER_NOT_FOUND].contains(&error.err_code) => Ok(None),
        BrokerApiAnswer::Error { error } => bail!("{subject}: {} ({})", error.description, error.err_code),
    }
}

/// Names the settings that are not as they were requested. A server leaves out a setting that has its default: 0, false or nothing.
fn differences(requested: &Map<String, Value>, stored: &Map<String, Value>) -> Vec<String> {
    let is_default = |value: &Value| [json!(0), json!(false), json!(""), json!([]), json!({}), Value::Null].contains(value);
    let differs = |(name, requested): (&String, &Value)| match stored.get(name) {
        Some(stored) if stored == requested => None,
        None if is_default(requested) => None,
        stored => Some(format!("{name} is {} instead of {requested}", stored.unwrap_or(&Value::Null))),
    };
    requested.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_stick_is_named() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let requested = object(json!({"name": "A", "max_age": 0, "allow_atomic": true, "max_msg_size": 10}));
        assert!(
            differences(&requested, &object(json!({"name": "A", "allow_atomic": true, "max_msg_size": 10, "more": 1})))
                .is_empty()
        );
        assert_eq!(
            differences(&requested, &object(json!({"name": "A", "max_msg_size": 5}))),
            ["allow_atomic is null instead of true", "max_msg_size is 5 instead of 10"]
        );
    }
}
