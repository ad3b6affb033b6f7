//! Any number of projectors share the work; each may be killed or stopped while it holds unacknowledged events.

use acceptance::marketplace::Builder;
use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until};
use events::AggregateKey;

/// Unacknowledged events of a killed projector are redelivered after this, not after half a minute. `provision` configures it.
const ACK_WAIT: &str = "2s";

async fn with_short_patience(builder: Builder) -> anyhow::Result<Marketplace> {
    let market = builder.setting(Name::Projector, "ACK_WAIT", ACK_WAIT).later(Name::Projector).start().await?;
    let provisioned = market.projector()?.tool(&["provision"]).await?;
    anyhow::ensure!(provisioned.status.success(), "{}", String::from_utf8_lossy(&provisioned.stderr));
    Ok(market)
}

#[tokio::test]
async fn a_projector_dies_after_the_write_and_before_the_answer() -> anyhow::Result<()> {
    let market = with_short_patience(Marketplace::builder().linked()).await?;
    market.projector()?.start().await?;
    let ada = market.seller("ada")?;
    let first = ada.publishes(a_listing().with_stock(1)).await?;
    market.settle().await?;

    // OpenSearch has taken it, and the projector will never know.
    let hold = market.link(Name::Projector, 0, Dependency::OpenSearch)?.hold(Moment::answer("\"items\""));
    let second = ada.publishes(a_listing().titled("Taken but not answered")).await?;
    hold.reached().await?;
    market.projector()?.kill()?;
    drop(hold);
    market.projector()?.start().await?;
    market.settle().await?;
    let documents = market.documents(&[first.id.0, second.id.0]).await?;
    assert_eq!(documents.values().map(|document| document.version).collect::<Vec<_>>(), [1, 1]);
    market.stop().await
}

#[tokio::test]
async fn one_of_two_projectors_sleeps_and_wakes_up_late() -> anyhow::Result<()> {
    let market = with_short_patience(Marketplace::builder().with(Name::Projector, 2)).await?;
    market.program(Name::Projector, 0)?.start().await?;
    market.program(Name::Projector, 1)?.start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(1)).await?;
    market.program(Name::Projector, 1)?.pause()?;
    for number in 0..20 {
        ada.publishes(a_listing().titled(&format!("While one sleeps {number}")).with_stock(number)).await?;
    }
    ada.deletes(listing).await?;
    market.settle().await?;
    // It goes on with events that the other has long applied, and newer ones too.
    market.program(Name::Projector, 1)?.wake()?;
    ada.publishes(a_listing().titled("After it woke up")).await?;
    market.settle().await?;
    let gone = market.documents(&[listing.id.0]).await?;
    assert!(gone.get(&listing.id.0).is_some_and(|document| document.state.is_none()));
    assert_eq!(market.versions_in_stream(AggregateKey::listing(listing.id)).await?, [1, 2]);
    market.stop().await
}

#[tokio::test]
async fn a_projector_that_is_told_to_stop_leaves_its_work_to_the_other_at_once() -> anyhow::Result<()> {
    // What it does not give back comes again only after this, long after the scenario is over.
    let market = Marketplace::builder().with(Name::Projector, 2).setting(Name::Projector, "ACK_WAIT", "10m").start().await?;
    let ada = market.seller("ada")?;
    let stopping = market.program(Name::Projector, 0)?;
    let publishes = async {
        for number in 0..120 {
            ada.publishes(a_listing().titled(&format!("Number {number}")).with_stock(number)).await?;
        }
        anyhow::Ok(())
    };
    let stops = async {
        until("events to flow", async || {
            let applied = [("projection", "listing_search"), ("outcome", "applied")];
            Ok(stopping.metric("listings_projection_events_total", &applied).await? > Some(5.0))
        })
        .await?;
        stopping.ask_to_end()?;
        until("the projector to say that it stops", async || {
            Ok(!stopping.is_running() || stopping.ops("/ready").await.is_ok_and(|(status, _)| status != 200))
        })
        .await?;
        let ended = stopping.end().await?;
        anyhow::ensure!(ended.success(), "{ended}");
        anyhow::Ok(())
    };
    let (published, stopped) = tokio::join!(publishes, stops);
    published?;
    stopped?;
    market.settle().await?;
    market.stop().await
}
