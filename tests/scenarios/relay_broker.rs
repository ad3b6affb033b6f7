//! The broker goes away, or comes back without what it had.

use acceptance::{Marketplace, a_listing, until, until_eq};
use events::AggregateKey;
use reqwest::StatusCode;
use serde_json::json;

const STREAM: &str = "LISTINGS_EVENTS";

#[tokio::test]
async fn commands_go_on_without_the_broker_and_all_is_published_afterwards() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let before = ada.publishes(a_listing().with_stock(3)).await?;
    market.settle().await?;

    market.nats.kill()?;
    ada.changes(before, json!({ "title": "Changed while nobody listened" })).await?;
    let during = ada.publishes(a_listing().titled("Made while nobody listened")).await?;
    let command_api = market.command_api()?;
    until("the backlog to be seen", async || {
        let unpublished = command_api.metric("listings_outbox_unpublished", &[]).await?;
        let age = command_api.metric("listings_outbox_oldest_age_seconds", &[]).await?;
        Ok(unpublished >= Some(3.0) && age > Some(0.0))
    })
    .await?;
    let (status, body) = command_api.ops("/ready").await?;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.contains("degraded"), "{body}");

    market.nats.start_again().await?;
    market.settle().await?;
    assert_eq!(market.versions_in_stream(AggregateKey::listing(before.id)).await?, [1, 2]);
    assert_eq!(market.versions_in_stream(AggregateKey::listing(during.id)).await?, [1]);
    until_eq("no backlog", Some(0.0), async || command_api.metric("listings_outbox_unpublished", &[]).await).await?;
    let published = command_api.metric("listings_relay_published_total", &[]).await?;
    assert!(published >= Some(5.0), "{published:?}");
    market.stop().await
}

#[tokio::test]
async fn a_deleted_stream_is_repaired_from_the_journal() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let mut listings = Vec::new();
    for number in 0..20 {
        let listing = ada.publishes(a_listing().titled(&format!("Bicycle {number}")).with_stock(1)).await?;
        ada.changes(listing, json!({ "brand": "Rog" })).await?;
        listings.push(listing);
    }
    market.settle().await?;

    // A projector outlives its consumers, but this is not its story.
    market.projector()?.stop().await?;
    market.nats.jetstream().delete_stream(STREAM).await?;
    for listing in &listings {
        ada.changes(*listing, json!({ "title": "Changed while there was no stream" })).await?;
    }
    let provisioned = market.projector()?.tool(&["provision"]).await?;
    assert!(provisioned.status.success(), "{provisioned:?}");
    market.projector()?.start().await?;
    ada.changes(listings[0], json!({ "title": "Changed after it came back" })).await?;

    for (index, listing) in listings.iter().enumerate() {
        let expected: Vec<u64> = if index == 0 { vec![1, 2, 3, 4] } else { vec![1, 2, 3] };
        let key = AggregateKey::listing(listing.id);
        until_eq(format_args!("all versions of {key}"), expected, async || market.versions_in_stream(key).await).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn a_purged_stream_is_repaired_when_an_aggregate_changes_or_at_the_next_start() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let (changed, still) = (ada.publishes(a_listing()).await?, ada.publishes(a_listing()).await?);
    ada.changes(changed, json!({ "brand": "Rog" })).await?;
    market.settle().await?;

    market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
    ada.changes(changed, json!({ "brand": "Capriolo" })).await?;
    let key = AggregateKey::listing(changed.id);
    until_eq("its whole history", vec![1, 2, 3], async || market.versions_in_stream(key).await).await?;

    let command_api = market.command_api()?;
    command_api.stop().await?;
    command_api.start().await?;
    let key = AggregateKey::listing(still.id);
    until_eq("what nobody touched", vec![1], async || market.versions_in_stream(key).await).await?;
    market.stop().await
}
