//! A store or the broker that is away makes the projections wait. It never makes a dead letter.

use acceptance::{Dependency, Marketplace, Name, a_listing, until, until_eq};

async fn holds(market: &Marketplace, projection: &str) -> anyhow::Result<bool> {
    Ok(market.projector()?.metric("listings_projection_held", &[("projection", projection)]).await? == Some(1.0))
}

#[tokio::test]
async fn a_store_that_is_away_holds_its_own_projections_only() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    for (dependency, waiting, going_on) in [
        (Dependency::OpenSearch, "listing_search", "listing_catalog"),
        (Dependency::Postgres, "listing_catalog", "listing_search"),
        (Dependency::Redis, "listing_page", "stock_levels"),
    ] {
        let link = market.link(Name::Projector, 0, dependency)?;
        link.cut().await?;
        let mut published = Vec::new();
        for number in 0..30 {
            published.push(ada.publishes(a_listing().titled(&format!("{dependency:?} {number}")).with_stock(1)).await?);
        }
        until(format!("{waiting} to hold"), async || holds(&market, waiting).await).await?;
        until_eq(format!("{going_on} to go on"), Some(0.0), async || {
            market.projector()?.metric("listings_projection_lag_events", &[("projection", going_on)]).await
        })
        .await?;
        assert!(!holds(&market, going_on).await?);
        assert_eq!(market.projector()?.ops("/ready").await?.0, 200, "it holds on purpose");
        let status = market.projector()?.status().await?;
        let feed = status["projections"].as_array().into_iter().flatten().find(|feed| feed["projection"] == waiting);
        assert!(feed.is_some_and(|feed| feed["state"] == "holding" && feed["why"].is_string()), "{status}");

        link.mend().await?;
        until(format!("{waiting} to go on"), async || Ok(!holds(&market, waiting).await?)).await?;
        market.settle().await?;
        for listing in published {
            assert!(market.documents(&[listing.id.0]).await?.contains_key(&listing.id.0));
            assert!(market.catalogue().await?.contains_key(&listing.id.0));
        }
    }
    market.stop().await
}

#[tokio::test]
async fn the_broker_comes_back_and_so_do_the_projections() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    market.nats.kill()?;
    let meanwhile = ada.publishes(a_listing().titled("Written without a broker")).await?;
    until_eq("the projector to be unready", 503, async || Ok(market.projector()?.ops("/ready").await?.0.as_u16())).await?;
    market.nats.start_again().await?;
    market.settle().await?;
    assert_eq!(market.shows(meanwhile).await?.title, "Written without a broker");
    until_eq("the projector to be ready", 200, async || Ok(market.projector()?.ops("/ready").await?.0.as_u16())).await?;
    market.stop().await
}

#[tokio::test]
async fn a_projector_that_starts_alone_waits_for_everything() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().later(Name::Projector).start().await?;
    let listing = market.seller("ada")?.publishes(a_listing().with_stock(4)).await?;
    let all = [Dependency::Nats, Dependency::Postgres, Dependency::OpenSearch, Dependency::Redis];
    for dependency in all {
        market.link(Name::Projector, 0, dependency)?.cut().await?;
    }
    market.projector()?.launch().await?;
    assert_eq!(market.projector()?.ops("/ready").await?.0, 503);
    for dependency in all {
        assert_eq!(market.projector()?.ops("/health").await?.0, 200);
        market.link(Name::Projector, 0, dependency)?.mend().await?;
    }
    market.projector()?.becomes_ready().await?;
    market.settle().await?;
    assert_eq!(market.stock(listing.variant).await?.on_hand, 4);
    market.stop().await
}
