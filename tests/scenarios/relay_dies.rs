//! Whatever moment command-api dies at, every committed event is published, once and in order.

use std::collections::HashSet;

use acceptance::stores::StreamMessage;
use acceptance::{Dependency, Hold, Link, Marketplace, Moment, Name, Program, a_listing, until_eq};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

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

    let link = market.link(Name::CommandApi, 0, server)?;
    let hold = link.hold(moment);
    broker.mend().await?;
    hold.reached().await?;
    dies(market.command_api()?, link, hold).await?;

    market.command_api()?.start().await?;
    // Half of them only: a later version has the relay look for what is missing before it.
    for listing in listings.into_iter().step_by(2) {
        ada.changes(listing, json!({ "title": "Sold as seen" })).await?;
    }
    market.stop().await
}

/// Kills a program, and with it what is held: nobody ever hears of that.
async fn dies(program: &Program, link: &Link, hold: Hold) -> anyhow::Result<()> {
    program.kill()?;
    link.cut().await?;
    hold.release();
    link.mend().await
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

/// The relay's lanes: a shard is in that of its number's remainder.
const LANES: i16 = 2;

/// How many events the broker has that the outbox still holds, in each lane.
async fn acknowledged(market: &Marketplace) -> anyhow::Result<Vec<usize>> {
    let select = "select shard, event_id from command.outbox join command.events using (seq)";
    let waiting: Vec<(i16, Uuid)> = sqlx::query_as(select).fetch_all(&market.postgres.pool).await?;
    let stored: HashSet<String> = market.stream().await?.iter().filter_map(StreamMessage::event_id).map(str::to_owned).collect();
    let in_lane = |lane| waiting.iter().filter(|(shard, id)| shard % LANES == lane && stored.contains(&id.to_string())).count();
    Ok((0..LANES).map(in_lane).collect())
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
    let limbo = loop {
        hold.reached().await?;
        // The other lane stands still as well.
        link.freeze();
        let limbo = acknowledged(&market).await?;
        if limbo.iter().any(|events| *events > BATCH) {
            break limbo;
        }
        // The first shards that it took had less, and it looks for late rows now and then.
        let next = deletes();
        hold.release();
        link.mend().await?;
        hold = next;
    };
    dies(publisher, link, hold).await?;
    let left = acknowledged(&market).await?;
    assert!(left.iter().any(|events| *events > BATCH), "{left:?} of {limbo:?}: the delete was heard of");

    publisher.start().await?;
    until_eq("the outbox to be empty", 0, async || market.outbox().await).await?;
    assert_eq!(market.stream().await?.len(), EVENTS, "each event once");
    market.leave().await
}
