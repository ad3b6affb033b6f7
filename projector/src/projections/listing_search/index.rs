//! Provisions OpenSearch: the index template, the index of each generation, and the alias that searches read.

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
    let (_, stored) = get(opensearch, &format!("/_index_template/{alias}")).await?;
    let stored = &stored["index_templates"][0]["index_template"]["_meta"]["mapping_hash"];
    if *stored != mapping_hash() {
        bail!("OpenSearch did not take the index template {alias}: its mapping hash is {stored}");
    }
    lines.push(format!("index template {alias}: unchanged"));

    for generation in generations {
        lines.push(provision_index(opensearch, &generation.search_index(alias)).await?);
    }
    if let Some(serving) = generations.iter().find(|generation| generation.is_serving()) {
        lines.push(provision_alias(opensearch, alias, &serving.search_index(alias)).await?);
    }
    Ok(lines)
}

/// Makes an index, or checks the one that is there. An index keeps the mapping that it was made with, because its documents were
/// analysed by that.
async fn provision_index(opensearch: &OpenSearch, index: &str) -> anyhow::Result<String> {
    let (status, found) = get(opensearch, &format!("/{index}")).await?;
    let (found, done) = if status == StatusCode::NOT_FOUND {
        put(opensearch, &format!("/{index}"), &index_body()).await?;
        (get(opensearch, &format!("/{index}")).await?.1, "created")
    } else {
        (found, "unchanged")
    };
    let hash = &found[index]["mappings"]["_meta"]["mapping_hash"];
    if *hash != mapping_hash() {
        bail!(
            "index {index} has the mapping {hash}, and this version writes {}: documents would be refused or not be found. \
             Build a new generation with the new mapping, or, if nothing of value is in it, delete the index and provision again",
            mapping_hash()
        );
    }
    // Shards, replicas and refresh interval are the operator's choice; strictness is not.
    if found[index]["mappings"]["dynamic"] != json!("strict") {
        bail!("OpenSearch did not take the mapping of {index} as strict");
    }
    Ok(format!("index {index}: {done}"))
}

/// Makes the alias point to the serving generation. One that points elsewhere is refused: only a rebuild moves it.
async fn provision_alias(opensearch: &OpenSearch, alias: &str, serving: &str) -> anyhow::Result<String> {
    let (status, found) = get(opensearch, &format!("/_alias/{alias}")).await?;
    let holders: Vec<&String> = found.as_object().map(|holders| holders.keys().collect()).unwrap_or_default();
    if status != StatusCode::NOT_FOUND && holders == [serving] {
        return Ok(format!("alias {alias}: unchanged"));
    }
    if status != StatusCode::NOT_FOUND && !holders.is_empty() {
        bail!("alias {alias} points to {holders:?}, but generation {serving} serves");
    }
    let actions = json!({ "actions": [{ "add": { "index": serving, "alias": alias } }] });
    send(opensearch, Method::Post, "/_aliases", &actions).await?;
    let (_, stored) = get(opensearch, &format!("/_alias/{alias}")).await?;
    if stored.get(serving).is_none() {
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
