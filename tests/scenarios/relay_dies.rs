//! Whatever moment command-api dies at, every committed event is published, once and in order.

use acceptance::{Dependency, Marketplace, Moment, Name, a_listing};
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
