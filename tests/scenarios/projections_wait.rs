//! A store or broker that does not answer makes the projections wait. It never makes a dead letter.

use std::time::{Duration, SystemTime};

use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until, until_eq};
use chrono::DateTime;
use events::subject::EVENTS_STREAM;
use reqwest::Method;
use serde_json::json;

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
async fn a_store_that_takes_no_writes_is_waited_for() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let before = ada.publishes(a_listing().titled("Before")).await?;
    market.settle().await?;

    // As OpenSearch itself does on a disk that is nearly full.
    let settings = format!("/{}/_settings", market.opensearch.alias);
    let block = async |blocked: Option<bool>| {
        let blocked = json!({ "index.blocks.read_only_allow_delete": blocked });
        market.opensearch.ask(Method::PUT, &settings, Some(&blocked)).await
    };
    // As after a failover that this address did not take part in.
    let replica = async |of: [&str; 2]| {
        redis::cmd("REPLICAOF").arg(&of).exec_async(&mut market.redis.connection().await?).await.map_err(anyhow::Error::from)
    };
    block(Some(true)).await?;
    replica(["127.0.0.1", "1"]).await?;
    let mut published = Vec::new();
    for number in 0..30 {
        published.push(ada.publishes(a_listing().titled(&format!("Meanwhile {number}"))).await?);
    }
    for waiting in ["listing_search", "listing_page"] {
        until(format!("{waiting} to hold"), async || holds(&market, waiting).await).await?;
    }
    assert_eq!(market.shows(before).await?.title, "Before", "reads go on");
    let found = market.visitor()?.asks("/api/v1/listings/search?q=Before").await?.expect(200)?.value()?;
    assert_eq!(found["items"][0]["id"], json!(before.id), "{found}");

    block(None).await?;
    replica(["NO", "ONE"]).await?;
    market.settle().await?;
    for listing in published {
        assert!(market.documents(&[listing.id.0]).await?.contains_key(&listing.id.0));
        assert!(market.page(listing.id.0).await?.is_some());
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

#[tokio::test]
async fn a_statement_that_is_never_answered_ends_in_a_hold_and_not_in_a_standstill() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    // One connection hangs for good; the server is there for all others.
    let hangs = market.link(Name::Projector, 0, Dependency::Postgres)?.hold(Moment::statement("insert into projection.listings"));
    let listing = ada.publishes(a_listing().titled("Held up")).await?;
    hangs.reached().await?;
    until("the row to be written by another statement", async || Ok(market.catalogue().await?.contains_key(&listing.id.0)))
        .await?;
    market.settle().await?;
    drop(hangs);
    market.stop().await
}

#[tokio::test]
async fn an_operator_pauses_one_projection_and_resumes_it() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    let state = async || {
        let status = market.projector()?.status().await?;
        let line = status["projections"].as_array().into_iter().flatten().find(|line| line["projection"] == "listing_catalog");
        anyhow::Ok(line.map(|line| line["state"].clone()))
    };
    let stream = market.nats.jetstream().get_stream(EVENTS_STREAM).await?;
    stream.pause_consumer("listing_catalog", DateTime::from(SystemTime::now() + Duration::from_hours(1))).await?;
    until_eq("the projection to be paused", Some(json!("paused")), async || state().await).await?;
    let meanwhile = ada.publishes(a_listing().titled("While it is paused")).await?;
    until("the others to go on", async || Ok(market.page(meanwhile.id.0).await?.is_some())).await?;
    assert!(!market.catalogue().await?.contains_key(&meanwhile.id.0), "the paused one does not");
    assert_eq!(market.projector()?.ops("/ready").await?.0, 200, "a pause is on purpose");

    stream.resume_consumer("listing_catalog").await?;
    until_eq("the projection to go on", Some(json!("consuming")), async || state().await).await?;
    market.settle().await?;
    market.stop().await
}

#[tokio::test]
async fn a_slow_store_is_given_what_it_can_take() -> anyhow::Result<()> {
    let market = Marketplace::builder().later(Name::Projector).start().await?;
    // All rows in one statement would take 12 s, of the 10 s that a statement may.
    for statement in [
        "create function projection.takes_its_time() returns trigger language plpgsql
             as $$ begin perform pg_sleep(0.12); return new; end $$",
        "create trigger slow before insert on projection.listings for each row execute function projection.takes_its_time()",
    ] {
        sqlx::query(statement).execute(&market.postgres.pool).await?;
    }
    let ada = market.seller("ada")?;
    for number in 0..100 {
        ada.publishes(a_listing().titled(&format!("Number {number}"))).await?;
    }
    market.projector()?.launch().await?;
    market.settle_within(Duration::from_secs(90)).await?;
    assert_eq!(market.catalogue().await?.len(), 100);
    market.stop().await
}

#[tokio::test]
async fn a_store_that_vanishes_without_a_word_is_found_where_it_comes_back() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    for (dependency, waiting) in [(Dependency::Postgres, "listing_catalog"), (Dependency::Redis, "listing_page")] {
        ada.publishes(a_listing().with_stock(1)).await?;
        market.settle().await?;
        let link = market.link(Name::Projector, 0, dependency)?;
        link.freeze();
        let listing = ada.publishes(a_listing().titled(&format!("{dependency:?} is frozen")).with_stock(2)).await?;
        until(format!("{waiting} to hold"), async || holds(&market, waiting).await).await?;
        // No connection of before ever says another word.
        link.strand().await?;
        until(format!("{waiting} to go on"), async || Ok(!holds(&market, waiting).await?)).await?;
        market.settle().await?;
        assert_eq!(market.stock(listing.variant).await?.on_hand, 2);
    }
    market.stop().await
}

#[tokio::test]
async fn a_projector_stops_though_its_store_hangs_and_its_broker_is_away() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    let hangs = market.link(Name::Projector, 0, Dependency::Postgres)?.hold(Moment::statement("insert into projection.listings"));
    let listing = ada.publishes(a_listing().titled("While it hangs")).await?;
    hangs.reached().await?;
    let (projector, broker) = (market.projector()?, market.link(Name::Projector, 0, Dependency::Nats)?);
    projector.ask_to_end()?;
    until("the projector to say that it stops", async || Ok(projector.ops("/ready").await?.1.contains("draining"))).await?;
    broker.cut().await?;
    let ended = projector.end().await?;
    assert!(ended.success(), "{ended}");

    drop(hangs);
    broker.mend().await?;
    projector.start().await?;
    market.settle().await?;
    assert_eq!(market.shows(listing).await?.title, "While it hangs");
    market.stop().await
}

#[tokio::test]
async fn a_broker_that_vanishes_without_a_word_is_found_where_it_comes_back() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().setting(Name::Projector, "ACK_WAIT", "5s").start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    let broker = market.link(Name::Projector, 0, Dependency::Nats)?;
    broker.freeze();
    let listing = ada.publishes(a_listing().with_stock(3)).await?;
    broker.strand().await?;
    market.settle().await?;
    assert_eq!(market.stock(listing.variant).await?.on_hand, 3);
    market.stop().await
}
