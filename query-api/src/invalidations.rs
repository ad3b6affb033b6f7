//! Follows the events of all listings, so that no page older than an event is served from this process (PROTOCOL Q2).
//!
//! Each process has an ephemeral consumer, headers only, that starts with new events. Whenever it may have missed one (a lost
//! connection, a gap in its sequence, missing heartbeats), the cached pages are dropped and the cache is bypassed until there is a
//! new consumer.

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

/// Pause between two attempts to get a consumer.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Two missing heartbeats mean that the server or the connection is lost.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// The client reconnects when the broker has not answered two pings in a row.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// The server deletes the consumer of a process that ended.
const DELETED_AFTER: Duration = Duration::from_secs(30);

/// Raises the floors of `pages` until `stop`. Without a broker it does not fail: pages are then read from the stores.
pub async fn follow(nats_urls: Vec<String>, pages: Arc<PageCache>, stop: CancellationToken) -> anyhow::Result<()> {
    let ended = stop.run_until_cancelled(consume_forever(nats_urls, &pages)).await;
    pages.unsubscribed();
    match ended {
        Some(never) => never,
        None => Ok(()),
    }
}

async fn consume_forever(nats_urls: Vec<String>, pages: &PageCache) -> anyhow::Result<()> {
    let (disconnected, mut disconnects) = watch::channel(());
    let client = ConnectOptions::new()
        .name("query-api")
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected) {
                disconnected.send_replace(());
            }
            std::future::ready(())
        })
        .connect(nats_urls)
        .await
        .context("NATS_URL cannot be used")?;
    let context = jetstream::new(client);
    loop {
        disconnects.mark_unchanged();
        let ended = tokio::select! {
            ended = consume(&context, pages) => ended,
            _ = disconnects.changed() => Err(anyhow::anyhow!("the connection to the broker is lost")),
        };
        pages.unsubscribed();
        if let Err(error) = ended {
            debug!(error = format!("{error:#}"), "Cannot follow events; pages are not cached in this process: {error}");
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Runs one consumer, from its creation to the first sign that it missed an event.
async fn consume(context: &jetstream::Context, pages: &PageCache) -> anyhow::Result<()> {
    let consumer = context
        .create_consumer_on_stream(
            pull::Config {
                description: Some("Invalidates pages cached in one query-api".to_owned()),
                deliver_policy: DeliverPolicy::New,
                ack_policy: AckPolicy::None,
                filter_subject: format!("{EVENTS_PREFIX}.{}.*", Listing::KIND),
                headers_only: true,
                inactive_threshold: DELETED_AFTER,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            },
            EVENTS_STREAM,
        )
        .await?;
    let mut messages = consumer.stream().heartbeat(HEARTBEAT).messages().await?;
    pages.subscribed();
    info!("Follows events of listings; pages may be cached in this process");

    let mut received = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        received += 1;
        let delivered = message.info().map_err(|error| anyhow::anyhow!("{error}"))?.consumer_sequence;
        ensure!(delivered == received, "message {received} of the consumer is missing");
        if let Some((id, version)) = changed(&message) {
            pages.raise_floor(id, version);
        }
    }
    anyhow::bail!("the consumer ended")
}

/// The listing and the version that a message is about. `None` for a message that is not an event of a listing.
fn changed(message: &Message) -> Option<(ListingId, u64)> {
    let key = AggregateKey::from_subject(&message.subject)?;
    let version = message.headers.as_ref()?.get(header::AGGREGATE_VERSION)?.as_str().parse().ok()?;
    (key.kind == Listing::KIND).then_some((ListingId(key.id), version))
}
