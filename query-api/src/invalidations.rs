//! Hears of every change of a listing, so that no page older than it is served from this process (PROTOCOL Q2).
//!
//! An ephemeral consumer of its own, headers only, from now on. Whatever may have made it miss an event (a lost link, a gap
//! in its count, silence) empties the process's pages and bypasses them until a new consumer stands.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Message};
use async_nats::{ConnectOptions, Event};
use events::envelope::header;
use events::subject::{EVENTS_PREFIX, EVENTS_STREAM};
use events::{Aggregate as _, AggregateKey, Listing, ListingId};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::page_cache::PageCache;

/// Between two tries to get a consumer.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Two heartbeats missed mean that the server or the link is gone.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A broker that leaves two of these unanswered is gone, and looked for anew by the third.
const PINGED_EVERY: Duration = Duration::from_secs(4);
/// The server forgets a consumer whose process is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Keeps the floors of `pages` until told to stop. It never fails: without a broker pages are read from the stores.
pub async fn follow(nats_urls: Vec<String>, pages: Arc<PageCache>, stop: CancellationToken) -> anyhow::Result<()> {
    let heard = stop.run_until_cancelled(hear_for_ever(nats_urls, &pages)).await;
    pages.events_are_lost();
    match heard {
        Some(never) => never,
        None => Ok(()),
    }
}

async fn hear_for_ever(nats_urls: Vec<String>, pages: &PageCache) -> anyhow::Result<()> {
    let (lost, mut losses) = watch::channel(());
    let client = ConnectOptions::new()
        .name("query-api")
        .retry_on_initial_connect()
        .ping_interval(PINGED_EVERY)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected) {
                lost.send_replace(());
            }
            std::future::ready(())
        })
        .connect(nats_urls)
        .await
        .context("NATS_URL is of no use")?;
    let context = jetstream::new(client);
    loop {
        losses.mark_unchanged();
        let ended = tokio::select! {
            ended = hear(&context, pages) => ended,
            _ = losses.changed() => Err(anyhow::anyhow!("the link to the broker is lost")),
        };
        pages.events_are_lost();
        if let Err(error) = ended {
            debug!(error = format!("{error:#}"), "Events are not heard of: {error}");
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// One consumer, from its creation to the first sign that it missed something.
async fn hear(context: &jetstream::Context, pages: &PageCache) -> anyhow::Result<()> {
    let consumer = context
        .create_consumer_on_stream(
            pull::Config {
                description: Some("Tells a query-api which pages are old".to_owned()),
                deliver_policy: DeliverPolicy::New,
                ack_policy: AckPolicy::None,
                filter_subject: format!("{EVENTS_PREFIX}.{}.*", Listing::KIND),
                headers_only: true,
                inactive_threshold: FORGOTTEN_AFTER,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            },
            EVENTS_STREAM,
        )
        .await?;
    let mut messages = consumer.stream().heartbeat(HEARTBEAT).messages().await?;
    pages.events_are_heard();
    info!("Hears of changed listings; pages may be kept in this process");

    let mut count = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        count += 1;
        let delivered = message.info().map_err(|error| anyhow::anyhow!("{error}"))?.consumer_sequence;
        ensure!(delivered == count, "message {count} of the consumer is missing");
        if let Some((id, version)) = changed(&message) {
            pages.raise_floor(id, version);
        }
    }
    anyhow::bail!("the consumer ended")
}

/// Which listing a message is about, and its version after it. A message that does not say is not one of ours.
fn changed(message: &Message) -> Option<(ListingId, u64)> {
    let key = AggregateKey::from_subject(&message.subject)?;
    let version = message.headers.as_ref()?.get(header::AGGREGATE_VERSION)?.as_str().parse().ok()?;
    (key.kind == Listing::KIND).then_some((ListingId(key.id), version))
}
