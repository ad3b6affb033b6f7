//! Speed of the relay publishing a full outbox, against the slower of two parts of that: reading the outbox, and publishing the
//! messages durably.

use std::time::{Duration, Instant};

use acceptance::{Marketplace, Name, until::within};
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::Value;

use crate::stock_up;
use crate::table::{Line, Rounds};
use crate::{QUIET, ROUNDS};

/// Each listing makes two events: its own and that of its stock.
const LISTINGS: u64 = 25_000;
const EVENTS: u64 = 2 * LISTINGS;
/// Messages per atomic batch, and concurrent batches: the limits that apply to the relay too.
const BATCH: usize = 500;
const CONCURRENT_BATCHES: usize = 2;
const TIMEOUT: Duration = Duration::from_mins(5);

pub async fn measure() -> anyhow::Result<Line> {
    let (mut ours, mut read, mut published) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let market = Marketplace::builder().later(Name::Projector).setting(Name::CommandApi, "RUST_LOG", QUIET).start().await?;
        // The broker is down while the outbox fills.
        market.nats.kill()?;
        stock_up::with(&market, LISTINGS).await?;
        let (rows, rate) = read_outbox(&market).await?;
        read.push(rate);
        market.nats.start_again().await?;
        within(TIMEOUT, "the outbox to drain", async || Ok(is_drained(&market).await?.then_some(()))).await?;
        ours.push(stream_rate(&market).await?);
        published.push(publish(&market, &rows).await?);
        eprintln!("drain, round {round}: {:.0}/s; read {:.0}/s; publish {:.0}/s", ours[round], read[round], published[round]);
        market.discard().await?;
    }
    let slower = if Rounds::of(&read).median < Rounds::of(&published).median { &read } else { &published };
    Ok(Line::ratio("relay drains 50k events ÷ min(outbox read, durable atomic-batch publish)", &ours, slower, 0.85))
}

/// Whether the outbox is empty. A count would read up to 50,000 rows at each check, which would slow the relay down.
async fn is_drained(market: &Marketplace) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("select not exists (select from command.outbox)").fetch_one(&market.postgres.pool).await?)
}

/// Headers and body of one event in the outbox.
struct OutboxRow {
    headers: Value,
    body: Bytes,
}

/// Reads the whole outbox as the relay does: per shard, in order, joined with the journal. Returns the rows and rows per second.
async fn read_outbox(market: &Marketplace) -> anyhow::Result<(Vec<OutboxRow>, f64)> {
    let started = Instant::now();
    let mut rows = Vec::with_capacity(EVENTS as usize);
    for shard in 0..16_i16 {
        let mut from = 0_i64;
        loop {
            let claim: Vec<(i64, sqlx::types::Json<Value>, Vec<u8>)> = sqlx::query_as(
                "select e.seq, e.headers, e.body from command.outbox o join command.events e using (seq)
                  where o.shard = $1 and o.seq > $2 order by o.seq limit 500",
            )
            .bind(shard)
            .bind(from)
            .fetch_all(&market.postgres.pool)
            .await?;
            let Some((last, ..)) = claim.last() else { break };
            from = *last;
            rows.extend(claim.into_iter().map(|(_, headers, body)| OutboxRow { headers: headers.0, body: body.into() }));
        }
    }
    anyhow::ensure!(rows.len() as u64 == EVENTS, "the outbox has {} events instead of {EVENTS}", rows.len());
    let rate = EVENTS as f64 / started.elapsed().as_secs_f64();
    Ok((rows, rate))
}

/// Returns events per second between the first and the last message of the stream.
async fn stream_rate(market: &Marketplace) -> anyhow::Result<f64> {
    let mut stream = market.nats.jetstream().get_stream("LISTINGS_EVENTS").await?;
    let state = stream.info().await?.state.clone();
    anyhow::ensure!(state.messages == EVENTS, "the stream has {} events instead of {EVENTS}", state.messages);
    let elapsed = (state.last_timestamp - state.first_timestamp).to_std()?;
    Ok(EVENTS as f64 / elapsed.as_secs_f64())
}

/// Publishes the same headers and bodies in atomic batches to a stream with the configuration of the real one. Returns events per
/// second.
async fn publish(market: &Marketplace, rows: &[OutboxRow]) -> anyhow::Result<f64> {
    let jetstream = market.nats.jetstream();
    let mut config = jetstream.get_stream("LISTINGS_EVENTS").await?.cached_info().config.clone();
    "BENCH".clone_into(&mut config.name);
    config.subjects = vec!["bench.>".to_owned()];
    jetstream.create_stream(config).await?;
    let messages: Vec<(String, HeaderMap, Bytes)> = rows.iter().enumerate().map(message).collect();

    let started = Instant::now();
    let batches = messages.chunks(BATCH).enumerate().map(|(n, batch)| Ok::<_, anyhow::Error>((n, batch)));
    futures_util::stream::iter(batches)
        .try_for_each_concurrent(CONCURRENT_BATCHES, |(n, batch)| publish_batch(market.nats.client(), n, batch))
        .await?;
    Ok(EVENTS as f64 / started.elapsed().as_secs_f64())
}

/// Builds the message of the `n`-th event.
fn message((n, row): (usize, &OutboxRow)) -> (String, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    for (name, value) in row.headers.as_object().into_iter().flatten() {
        headers.insert(name.as_str(), value.as_str().unwrap_or_default());
    }
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
    headers.insert("Nats-Expected-Stream", "BENCH");
    (format!("bench.{n}"), headers, row.body.clone())
}

async fn publish_batch(client: async_nats::Client, n: usize, batch: &[(String, HeaderMap, Bytes)]) -> anyhow::Result<()> {
    for (index, (subject, headers, body)) in batch.iter().enumerate() {
        let mut headers = headers.clone();
        headers.insert("Nats-Batch-Id", format!("bench-{n}").as_str());
        headers.insert("Nats-Batch-Sequence", (index + 1).to_string().as_str());
        if index + 1 == batch.len() {
            headers.insert("Nats-Batch-Commit", "1");
            let answer = client.send_request(subject.clone(), Request::new().headers(headers).payload(body.clone())).await?;
            let ack: Value = serde_json::from_slice(&answer.payload)?;
            anyhow::ensure!(ack["count"] == batch.len(), "the broker answered {ack}");
        } else if index == 0 {
            client.send_request(subject.clone(), Request::new().headers(headers).payload(body.clone())).await?;
        } else {
            client.publish_with_headers(subject.clone(), headers, body.clone()).await?;
        }
    }
    Ok(())
}
