//! `projector provision` makes what is missing, mends what differs, and refuses what it cannot mend.

use acceptance::Marketplace;
use events::subject::EVENTS_STREAM;
use reqwest::Method;
use serde_json::{Value, json};
use views::{listing_page, listing_search};

/// Whether it went well, and what it said.
async fn provision(market: &Marketplace) -> anyhow::Result<(bool, String)> {
    let output = market.projector()?.tool(&["provision"]).await?;
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned());
    Ok((output.status.success(), told.concat()))
}

async fn jetstream(market: &Marketplace, request: String, body: Option<&Value>) -> anyhow::Result<Value> {
    let payload = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let answer = market.nats.client().request(format!("$JS.API.{request}"), payload.into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    anyhow::ensure!(answer.get("error").is_none(), "{request}: {answer}");
    Ok(answer)
}

#[tokio::test]
async fn what_is_right_stays_and_what_was_changed_is_mended() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let (well, told) = provision(&market).await?;
    assert!(well && told.contains("unchanged") && !told.contains("created") && !told.contains("updated"), "{told}");

    let info = format!("CONSUMER.INFO.{EVENTS_STREAM}.{}", listing_page::NAME);
    let held = jetstream(&market, info.clone(), None).await?["config"].clone();
    let mut changed = held.clone();
    changed["max_ack_pending"] = json!(7);
    changed["headers_only"] = json!(true);
    let update = json!({ "stream_name": EVENTS_STREAM, "config": changed });
    jetstream(&market, format!("CONSUMER.CREATE.{EVENTS_STREAM}.{}", listing_page::NAME), Some(&update)).await?;

    let stream = jetstream(&market, format!("STREAM.INFO.{EVENTS_STREAM}"), None).await?["config"].clone();
    let mut other = stream.clone();
    other["max_msgs_per_subject"] = json!(3);
    jetstream(&market, format!("STREAM.UPDATE.{EVENTS_STREAM}"), Some(&other)).await?;

    let (well, told) = provision(&market).await?;
    assert!(well, "{told}");
    for mended in [format!("stream {EVENTS_STREAM}: updated"), format!("consumer {}: updated", listing_page::NAME)] {
        assert!(told.contains(&mended), "{told}");
    }
    let mended = jetstream(&market, info, None).await?["config"].clone();
    assert_eq!((&mended["max_ack_pending"], mended["headers_only"] == true), (&held["max_ack_pending"], false));
    let mended = jetstream(&market, format!("STREAM.INFO.{EVENTS_STREAM}"), None).await?;
    assert_eq!(mended["config"]["max_msgs_per_subject"], stream["max_msgs_per_subject"]);
    market.stop().await
}

#[tokio::test]
async fn an_index_with_another_mapping_is_refused_and_left_as_it_is() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    market.projector()?.stop().await?;
    let index = listing_search::index(&market.opensearch.alias, 1);
    let path = format!("/{index}");
    let mut other = listing_search::index_body();
    other["mappings"]["_meta"]["mapping_hash"] = json!("of an older version");
    // By hand: the template has a say in it, but knows nothing of its fields.
    let by_hand = json!({ "mappings": { "properties": { "title": { "type": "keyword" } } } });
    for body in [other, by_hand] {
        market.opensearch.ask(Method::DELETE, &path, None).await?;
        market.opensearch.ask(Method::PUT, &path, Some(&body)).await?;
        let (well, told) = provision(&market).await?;
        assert!(!well && told.contains(&index) && told.contains("mapping"), "{told}");
        let held = market.opensearch.ask(Method::GET, &path, None).await?.unwrap_or_default();
        assert_eq!(held[&index]["mappings"]["_meta"], body["mappings"]["_meta"]);
    }
    market.opensearch.ask(Method::DELETE, &path, None).await?;
    let (well, told) = provision(&market).await?;
    assert!(well && told.contains(&format!("index {index}: created")), "{told}");
    market.discard().await
}
