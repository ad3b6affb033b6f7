//! Speed of `listing_search` when it applies a whole catalogue, against raw `_bulk` requests with the same documents and mapping.

use std::time::{Duration, Instant};

use acceptance::{Marketplace, Name, until::within};
use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use views::listing_search;

use crate::stock_up;
use crate::table::Line;
use crate::{QUIET, ROUNDS};

const TIMEOUT: Duration = Duration::from_mins(10);
/// Documents per raw `_bulk` request, and concurrent requests. The first round tries all; later rounds use the fastest of them.
const RAW_CANDIDATES: [(usize, usize); 3] = [(500, 2), (1000, 2), (2000, 2)];

pub async fn measure() -> anyhow::Result<Option<Line>> {
    let Ok(file) = std::env::var("BENCH_CATALOGUE") else {
        eprintln!("catch-up: skipped, because BENCH_CATALOGUE is not set to the path of a catalogue");
        return Ok(None);
    };
    let listings = std::fs::read_to_string(&file)?;
    let listings: Vec<Value> = listings.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let market = Marketplace::builder().setting(Name::Projector, "RUST_LOG", QUIET).start().await?;
    let count = stock_up::post(&market.admin("bench")?, &listings).await?.len();
    market.settle_within(TIMEOUT).await?;
    let index = listing_search::index(&market.opensearch.alias, 1);
    let documents = documents(&market, &index).await?;
    anyhow::ensure!(documents.len() == count, "the index has {} documents for {count} listings", documents.len());

    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let mut candidates = RAW_CANDIDATES.to_vec();
    for round in 0..ROUNDS {
        let mut rates = Vec::new();
        for (size, concurrency) in candidates {
            rates.push((raw_bulk(&market, &documents, size, concurrency).await?, (size, concurrency)));
        }
        rates.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let (best, parameters) = rates[0];
        candidates = vec![parameters];
        raw.push(best);
        ours.push(rebuild(&market, &index, count).await?);
        eprintln!("catch-up, round {round}: {:.0} documents/s; raw {:.0}/s", ours[round], raw[round]);
    }
    market.discard().await?;
    Ok(Some(Line::ratio("listing_search catching up ÷ raw _bulk of the same documents", &ours, &raw, 0.9)))
}

/// Makes the projection start over with an empty index. Returns events per second from the first delivery to the last ack.
async fn rebuild(market: &Marketplace, index: &str, count: usize) -> anyhow::Result<f64> {
    let projector = market.projector()?;
    projector.stop().await?;
    let stream = market.nats.jetstream().get_stream("LISTINGS_EVENTS").await?;
    stream.delete_consumer(listing_search::NAME).await?;
    market.opensearch.ask(Method::DELETE, &format!("/{index}"), None).await?;
    let provisioned = projector.tool(&["provision"]).await?;
    anyhow::ensure!(provisioned.status.success(), "projector provision failed: {}", String::from_utf8_lossy(&provisioned.stderr));
    projector.launch().await?;
    let info = async || anyhow::Ok(stream.consumer_info(listing_search::NAME).await?);
    within(
        TIMEOUT,
        "the first event to be delivered",
        async || Ok((info().await?.delivered.consumer_sequence > 0).then_some(())),
    )
    .await?;
    let started = Instant::now();
    within(TIMEOUT, "the last event to be acknowledged", async || {
        let info = info().await?;
        Ok((info.num_pending == 0 && info.num_ack_pending == 0).then_some(()))
    })
    .await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    market.opensearch.refresh().await?;
    let counted = market.opensearch.ask(Method::GET, &format!("/{index}/_count"), None).await?.context("no index")?;
    anyhow::ensure!(counted["count"] == count, "the index has {} of {count} listings", counted["count"]);
    Ok(rate)
}

/// Reads all documents, each as the action line and the source line of a `_bulk` request.
async fn documents(market: &Marketplace, index: &str) -> anyhow::Result<Vec<String>> {
    let mut documents = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut search = json!({ "size": 1000, "version": true, "sort": [{ "id": "asc" }] });
        if !after.is_null() {
            search["search_after"] = after;
        }
        let page = market.opensearch.ask(Method::POST, &format!("/{index}/_search"), Some(&search)).await?.context("no index")?;
        let hits = page["hits"]["hits"].as_array().context("no hits")?;
        let Some(last) = hits.last() else { return Ok(documents) };
        after = last["sort"].clone();
        for hit in hits {
            let action = json!({ "index": { "_id": hit["_id"], "version": hit["_version"], "version_type": "external" } });
            documents.push(format!("{action}\n{}\n", hit["_source"]));
        }
    }
}

/// Writes the documents with raw `_bulk` requests into a new index. Returns documents per second.
async fn raw_bulk(market: &Marketplace, documents: &[String], size: usize, concurrency: usize) -> anyhow::Result<f64> {
    let index = format!("{}-raw", market.opensearch.alias);
    market.opensearch.ask(Method::DELETE, &format!("/{index}"), None).await?;
    market.opensearch.ask(Method::PUT, &format!("/{index}"), Some(&listing_search::index_body())).await?;
    let url = format!("http://{}/{index}/_bulk?filter_path=took,errors", market.opensearch.address());
    let http = reqwest::Client::new();
    let started = Instant::now();
    let requests = documents.chunks(size).map(|chunk| Ok::<_, anyhow::Error>(chunk.concat()));
    futures_util::stream::iter(requests)
        .try_for_each_concurrent(concurrency, |body| {
            let request = http.post(&url).header("content-type", "application/x-ndjson").body(body);
            async move {
                let answer: Value = request.send().await?.json().await?;
                anyhow::ensure!(answer["errors"] == false, "_bulk answered {answer}");
                Ok(())
            }
        })
        .await?;
    Ok(documents.len() as f64 / started.elapsed().as_secs_f64())
}
