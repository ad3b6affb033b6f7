//! The index template, the index of each generation, and the alias that searches read.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use opensearch::{
    OpenSearch,
    http::{Method, StatusCode, headers::HeaderMap},
};
use serde_json::{Value, json};
use views::listing_search::{index_body, mapping_hash, template};

use crate::generations::Generation;

/// Makes what is missing for these generations.
pub async fn provision(opensearch: &OpenSearch, alias: &str, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    put(opensearch, &format!("/_index_template/{alias}"), &template(alias)).await?;
    let (_, stuck) = get(opensearch, &format!("/_index_template/{alias}")).await?;
    let stuck = &stuck["index_templates"][0]["index_template"]["_meta"]["mapping_hash"];
    if *stuck != mapping_hash() {
        bail!("OpenSearch did not take the index template {alias}: its mapping hash is {stuck}");
    }
    lines.push(format!("index template {alias}: is as it should be"));

    for generation in generations {
        lines.push(provision_index(opensearch, &generation.search_index(alias)).await?);
    }
    if let Some(serving) = generations.iter().find(|generation| generation.is_serving()) {
        lines.push(provision_alias(opensearch, alias, &serving.search_index(alias)).await?);
    }
    Ok(lines)
}

/// An index keeps the mapping that it was made with: documents that are in it were analysed by that.
async fn provision_index(opensearch: &OpenSearch, index: &str) -> anyhow::Result<String> {
    let (status, held) = get(opensearch, &format!("/{index}")).await?;
    let (held, done) = if status == StatusCode::NOT_FOUND {
        put(opensearch, &format!("/{index}"), &index_body()).await?;
        (get(opensearch, &format!("/{index}")).await?.1, "created")
    } else {
        (held, "is as it should be")
    };
    let hash = &held[index]["mappings"]["_meta"]["mapping_hash"];
    if *hash != mapping_hash() {
        bail!(
            "index {index} has the mapping {hash}, and this version writes {}: documents would be refused or not be found. \
             Build a new generation with the new mapping, or, if nothing of value is in it, delete the index and provision again",
            mapping_hash()
        );
    }
    // Shards, replicas and refresh interval belong to whoever runs it; strictness is ours.
    if held[index]["mappings"]["dynamic"] != json!("strict") {
        bail!("OpenSearch did not take the mapping of {index} as strict");
    }
    Ok(format!("index {index}: {done}"))
}

/// The alias points where the generations say. Moving it is the business of a rebuild, not ours.
async fn provision_alias(opensearch: &OpenSearch, alias: &str, serving: &str) -> anyhow::Result<String> {
    let (status, held) = get(opensearch, &format!("/_alias/{alias}")).await?;
    let holders: Vec<&String> = held.as_object().map(|holders| holders.keys().collect()).unwrap_or_default();
    if status != StatusCode::NOT_FOUND && holders == [serving] {
        return Ok(format!("alias {alias}: is as it should be"));
    }
    if status != StatusCode::NOT_FOUND && !holders.is_empty() {
        bail!("alias {alias} points to {holders:?}, but generation {serving} serves");
    }
    let actions = json!({ "actions": [{ "add": { "index": serving, "alias": alias } }] });
    send(opensearch, Method::Post, "/_aliases", &actions).await?;
    let (_, stuck) = get(opensearch, &format!("/_alias/{alias}")).await?;
    if stuck.get(serving).is_none() {
        bail!("OpenSearch did not take the alias {alias}");
    }
    Ok(format!("alias {alias}: created, points to {serving}"))
}

async fn get(opensearch: &OpenSearch, path: &str) -> anyhow::Result<(StatusCode, Value)> {
    let sent = opensearch.transport().send(Method::Get, path, HeaderMap::new(), None::<&()>, None::<Bytes>, None).await;
    let response = sent.context("OpenSearch does not answer")?;
    let status = response.status_code();
    let answer: Value = response.json().await.with_context(|| format!("OpenSearch's answer to {path} cannot be read"))?;
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        bail!("OpenSearch answers {path} with {status}: {answer}");
    }
    Ok((status, answer))
}

async fn put(opensearch: &OpenSearch, path: &str, body: &Value) -> anyhow::Result<()> {
    send(opensearch, Method::Put, path, body).await
}

async fn send(opensearch: &OpenSearch, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let sent = opensearch.transport().send(method, path, HeaderMap::new(), None::<&()>, Some(body), None).await;
    let response = sent.context("OpenSearch does not answer")?;
    let status = response.status_code();
    if !status.is_success() {
        bail!("OpenSearch refuses {path} with {status}: {}", response.text().await.unwrap_or_default());
    }
    Ok(())
}
