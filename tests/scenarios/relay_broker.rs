//! The broker stops, or takes nothing, or not everything.

use std::time::Duration;

use acceptance::until::within;
use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until, until_eq};
use async_nats::jetstream::stream::Config;
use events::AggregateKey;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// More than the relay lets be refused before it takes the broker to refuse everybody.
const MANY: usize = 12;

async fn configure(market: &Marketplace, change: impl FnOnce(&mut Config)) -> anyhow::Result<()> {
    let jetstream = market.nats.jetstream();
    let mut config = jetstream.get_stream("LISTINGS_EVENTS").await?.cached_info().config.clone();
    change(&mut config);
    jetstream.update_stream(config).await?;
    Ok(())
}

/// Why the lanes of the relay wait, if they do.
async fn waiting(market: &Marketplace) -> anyhow::Result<String> {
    Ok(market.command_api()?.status().await?["relay"]["lanes"].to_string())
}

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
async fn a_full_stream_costs_no_command_and_takes_everything_once_there_is_room() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let before = ada.publishes(a_listing()).await?;
    market.settle().await?;

    let held = i64::try_from(market.stream().await?.len())?;
    configure(&market, |config| config.max_messages = held).await?;
    let mut during = Vec::new();
    for number in 0..MANY {
        during.push(ada.publishes(a_listing().titled(&format!("Made while there was no room {number}"))).await?);
    }
    ada.changes(before, json!({ "brand": "Rog" })).await?;
    until("the relay to say why it waits", async || Ok(waiting(&market).await?.contains("maximum messages"))).await?;
    assert_eq!(market.command_api()?.status().await?["relay"]["set_aside"]["count"], 0);

    configure(&market, |config| config.max_messages = -1).await?;
    market.settle().await?;
    assert_eq!(market.versions_in_stream(AggregateKey::listing(before.id)).await?, [1, 2]);
    for listing in during {
        assert_eq!(market.versions_in_stream(AggregateKey::listing(listing.id)).await?, [1]);
    }
    market.stop().await
}

#[tokio::test]
async fn an_event_that_is_too_large_holds_up_its_own_aggregate_only() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let grows = ada.publishes(a_listing()).await?;
    market.settle().await?;

    configure(&market, |config| config.max_message_size = 8_000).await?;
    ada.changes(grows, json!({ "description": "Ridden for one summer. ".repeat(400) })).await?;
    let command_api = market.command_api()?;
    let aside = async || Ok(command_api.status().await?["relay"]["set_aside"]["count"].clone());
    until_eq("the large event to be set aside", json!(1), aside).await?;
    for number in 0..MANY {
        let other = ada.publishes(a_listing().titled(&format!("Not concerned {number}"))).await?;
        ada.changes(other, json!({ "brand": "Rog" })).await?;
    }
    until_eq("everything else to be published", 1, async || market.outbox().await).await?;
    assert_eq!(aside().await?, json!(1));
    until_eq("it to be counted", Some(1.0), async || command_api.metric("listings_relay_set_aside", &[]).await).await?;

    configure(&market, |config| config.max_message_size = -1).await?;
    until_eq("nothing to be set aside", json!(0), aside).await?;
    assert_eq!(market.versions_in_stream(AggregateKey::listing(grows.id)).await?, [1, 2]);
    market.stop().await
}

#[tokio::test]
async fn a_broker_that_refuses_everybody_is_waited_for() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    configure(&market, |config| config.max_message_size = 100).await?;
    // Twice as many: a lane sees half of them.
    for number in 0..3 * MANY {
        ada.publishes(a_listing().titled(&format!("Refused for now {number}"))).await?;
    }
    until("the relay to say why it waits", async || Ok(waiting(&market).await?.contains("max_msg_size"))).await?;
    configure(&market, |config| config.max_message_size = -1).await?;
    market.stop().await
}

#[tokio::test]
async fn a_stop_publishes_what_is_committed() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    market.settle().await?;

    // The relay is busy until nothing is asked of the program any more.
    let command_api = market.command_api()?;
    let hold = market.link(Name::CommandApi, 0, Dependency::Postgres)?.hold(Moment::statement("delete from command.outbox"));
    ada.changes(listing, json!({ "brand": "Rog" })).await?;
    hold.reached().await?;
    ada.changes(listing, json!({ "title": "The last version" })).await?;
    let address = command_api.address()?;
    command_api.ask_to_end()?;
    until("it to take no more requests", async || Ok(TcpStream::connect(address).await.is_err())).await?;
    hold.release();
    assert!(command_api.end().await?.success());
    assert_eq!(market.outbox().await?, 0);
    assert_eq!(market.versions_in_stream(AggregateKey::listing(listing.id)).await?, [1, 2, 3]);
    command_api.start().await?;
    market.stop().await
}

#[tokio::test]
async fn a_slow_link_is_given_what_it_can_carry() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let broker = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    broker.cut().await?;
    let ada = market.seller("ada")?;
    // 4 MB, of which each lane sends half: as one batch if it may, for which this link needs longer than the broker may take.
    let attributes: Vec<Value> = (0..5).map(|n| json!({ "name": format!("Part {n}"), "value": "x".repeat(8000) })).collect();
    for number in 0..100 {
        ada.publishes(a_listing().titled(&format!("Encyclopedia, volume {number}")).with("attributes", attributes.clone()))
            .await?;
    }
    broker.slow_down(Duration::from_millis(200));
    broker.mend().await?;
    until("a batch to take too long", async || Ok(waiting(&market).await?.contains("in time"))).await?;
    within(Duration::from_mins(2), "everything published", async || Ok((market.outbox().await? == 0).then_some(()))).await?;
    broker.slow_down(Duration::ZERO);
    market.stop().await
}
