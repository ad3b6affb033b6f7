//! Two processes share the publishing, and either does all of it when the other cannot.

use acceptance::listings::Published;
use acceptance::{Dependency, Marketplace, Moment, Name, Person, Program, a_listing, until};
use serde_json::json;

const LISTINGS: usize = 24;

async fn publishes_many(seller: &Person<'_>) -> anyhow::Result<Vec<Published>> {
    let mut listings = Vec::new();
    for number in 0..LISTINGS {
        listings.push(seller.publishes(a_listing().titled(&format!("Bicycle {number}"))).await?);
    }
    Ok(listings)
}

async fn changes_all(seller: &Person<'_>, listings: &[Published], title: &str) -> anyhow::Result<()> {
    for listing in listings {
        seller.changes(*listing, json!({ "title": title })).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_killed_process_owned_is_published_by_the_other() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).start().await?;
    let (first, second) = (market.program(Name::CommandApi, 0)?, market.program(Name::CommandApi, 1)?);
    let ada = market.seller("ada")?;
    let listings = publishes_many(&ada).await?;
    changes_all(&ada.through(second), &listings, "Through the other").await?;

    // Kill the busier one; the other may own no shards.
    let published = async |program: &Program| program.metric("listings_relay_published_total", &[]).await;
    let (dies, stays) = if published(first).await? >= published(second).await? { (first, second) } else { (second, first) };
    assert!(published(dies).await? > Some(0.0));
    dies.kill()?;
    // Half of them only: a later version has the relay look for what is missing before it.
    changes_all(&ada.through(stays), &listings[..LISTINGS / 2], "One is left").await?;
    market.settle().await?;

    dies.start().await?;
    changes_all(&ada, &listings[..LISTINGS / 4], "Both again").await?;
    market.stop().await
}

#[tokio::test]
async fn a_process_that_wakes_up_late_publishes_nothing_twice() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).linked().start().await?;
    let second = market.program(Name::CommandApi, 1)?;
    let ada = market.seller("ada")?.through(second);
    for broker in market.links(Dependency::Nats) {
        broker.cut().await?;
    }
    let listings = publishes_many(&ada).await?;

    // Only the first has a broker, so it owns every shard. It stops with a batch all but sent.
    let broker = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    let hold = broker.hold(Moment::request("Nats-Batch-Commit"));
    broker.mend().await?;
    hold.reached().await?;
    market.program(Name::CommandApi, 0)?.pause()?;
    for broker in market.links(Dependency::Nats) {
        broker.mend().await?;
    }
    changes_all(&ada, &listings[..LISTINGS / 2], "While the first was asleep").await?;
    until("the second to publish everything", async || Ok(market.outbox().await? == 0)).await?;

    hold.release();
    market.program(Name::CommandApi, 0)?.wake()?;
    changes_all(&ada, &listings[..LISTINGS / 4], "Both again").await?;
    market.program(Name::CommandApi, 0)?.becomes_ready().await?;
    market.stop().await
}
