//! Whatever moment command-api dies at, every committed event is published, once and in order.

use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until_eq};
use reqwest::Method;
use serde_json::json;

/// Enough that several events of a lane travel in one batch.
const LISTINGS: usize = 20;

/// Lets a backlog grow, kills command-api at that moment of publishing it, and starts it again.
async fn dies_at(server: Dependency, moment: Moment) -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let broker = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    broker.cut().await?;
    let mut listings = Vec::new();
    for number in 0..LISTINGS {
        let listing = ada.publishes(a_listing().titled(&format!("Bicycle {number}")).with_stock(1)).await?;
        ada.changes(listing, json!({ "brand": "Rog" })).await?;
        listings.push(listing);
    }

    let hold = market.link(Name::CommandApi, 0, server)?.hold(moment);
    broker.mend().await?;
    hold.reached().await?;
    market.command_api()?.kill()?;
    hold.release();

    market.command_api()?.start().await?;
    for listing in listings {
        ada.changes(listing, json!({ "title": "Sold as seen" })).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn command_api_dies_before_the_broker_hears_of_an_event() -> anyhow::Result<()> {
    dies_at(Dependency::Nats, Moment::request("HPUB listings.events.")).await
}

#[tokio::test]
async fn command_api_dies_before_a_batch_is_complete() -> anyhow::Result<()> {
    dies_at(Dependency::Nats, Moment::request("Nats-Batch-Commit")).await
}

#[tokio::test]
async fn command_api_dies_before_the_ack_arrives() -> anyhow::Result<()> {
    dies_at(Dependency::Nats, Moment::answer(r#""stream":"LISTINGS_EVENTS""#)).await
}

#[tokio::test]
async fn command_api_dies_after_the_ack_and_before_the_delete() -> anyhow::Result<()> {
    dies_at(Dependency::Postgres, Moment::statement("delete from command.outbox")).await
}

#[tokio::test]
async fn command_api_dies_after_the_delete_and_before_its_answer() -> anyhow::Result<()> {
    // The statement that deletes ends with writing the marks; nothing else inserts by then.
    dies_at(Dependency::Postgres, Moment::answer("INSERT 0 ")).await
}

/// The relay deletes what several batches brought at once.
#[tokio::test]
async fn command_api_dies_after_several_acks_and_before_the_delete() -> anyhow::Result<()> {
    /// The lines of one request, and the most events that the relay publishes at once.
    const BATCH: usize = 500;
    /// A listing and its stock for each line of six requests.
    const EVENTS: usize = 12 * BATCH;
    let builder = Marketplace::builder().linked().with(Name::CommandApi, 2).setting_of(Name::CommandApi, 0, "RELAY", "off");
    let market = builder.later(Name::CommandApi).later(Name::Projector).start().await?;
    market.program(Name::CommandApi, 0)?.start().await?;
    let ada = market.seller("ada")?;
    for batch in 0..6 {
        let line = |number: usize| a_listing().titled(&format!("Bicycle {batch}/{number}")).with_stock(1).0.to_string();
        let lines: Vec<String> = (0..BATCH).map(line).collect();
        let batch = ada.command(Method::POST, "/api/v1/listings/batch")?.body("application/x-ndjson", lines.join("\n"));
        batch.send().await?.expect(200)?;
    }

    let (publisher, link) = (market.program(Name::CommandApi, 1)?, market.link(Name::CommandApi, 1, Dependency::Postgres)?);
    let deletes = || link.hold(Moment::statement("delete from command.outbox"));
    let mut hold = deletes();
    publisher.launch().await?;
    loop {
        hold.reached().await?;
        let (stored, left) = (market.stream_last_per_subject().await?.len(), usize::try_from(market.outbox().await?)?);
        if stored + left > EVENTS + 2 * BATCH {
            break;
        }
        // The first shards that it took had less, and it looks for late rows now and then.
        let next = deletes();
        hold.release();
        hold = next;
    }
    publisher.kill()?;
    hold.release();

    publisher.start().await?;
    until_eq("the outbox to be empty", 0, async || market.outbox().await).await?;
    assert_eq!(market.stream().await?.len(), EVENTS, "each event once");
    market.leave().await
}
