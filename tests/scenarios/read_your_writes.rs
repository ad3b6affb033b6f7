//! A query with the consistency token of a command sees its writes, or reports that they are not visible yet.

use std::time::{Duration, Instant};

use acceptance::{Answer, Dependency, Marketplace, Name, a_listing, until};
use events::{AggregateKey, ConsistencyToken};
use reqwest::Method;
use serde_json::json;

fn token(answer: &Answer) -> anyhow::Result<String> {
    let token = answer.header("consistency-token").map(str::to_owned);
    token.ok_or_else(|| anyhow::anyhow!("no Consistency-Token: {answer}"))
}

#[tokio::test]
async fn every_query_sees_what_its_caller_has_written() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    for round in 1..=20 {
        let word = format!("zanzibar{round}");
        let draft = a_listing().titled(&format!("Lamp {word}")).with_stock(3);
        let created = ada.creates(&draft).await?.expect(201)?;
        let (token_after_write, listing) = (token(&created)?, created.value()?);
        let (id, variant) =
            (listing["id"].as_str().unwrap_or_default(), listing["variants"][0]["id"].as_str().unwrap_or_default());

        let search = format!("/api/v1/listings/search?q={word}");
        let found = ada.query(&search)?.consistency_token(&token_after_write).send().await?.expect(200)?.value()?;
        assert_eq!(found["items"][0]["id"], id, "{found}");
        let shown =
            ada.query(&format!("/api/v1/listings/{id}"))?.consistency_token(&token_after_write).send().await?.expect(200)?;
        assert_eq!(shown.version()?, 1);
        assert_eq!(shown.header("stale"), None);
        let list = format!("/api/v1/listings?limit=1&seller_id={}", ada.id);
        let listed = ada.query(&list)?.consistency_token(&token_after_write).send().await?.expect(200)?.value()?;
        assert_eq!(listed["items"][0]["id"], id, "{listed}");
        let stock = format!("/api/v1/variants/{variant}/stock");
        let stock = ada.query(&stock)?.consistency_token(&token_after_write).send().await?.expect(200)?.value()?;
        assert_eq!(stock["on_hand"], 3);

        let gone = ada.command(Method::DELETE, &format!("/api/v1/listings/{id}"))?.if_match("*").send().await?.expect(204)?;
        let token_after_write = token(&gone)?;
        let by_id = ada.query(&format!("/api/v1/listings/{id}"))?.consistency_token(&token_after_write).send().await?;
        by_id.expect_problem(404, "not-found")?;
        let found = ada.query(&search)?.consistency_token(&token_after_write).send().await?.expect(200)?.value()?;
        assert_eq!(found["items"], json!([]), "the search finds a deleted listing");
    }
    market.stop().await
}

#[tokio::test]
async fn what_has_not_arrived_is_refused_or_called_stale() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let id = listing.id;
    let ahead = ConsistencyToken::of(&[(AggregateKey::listing(id), 2)]).encode();
    let paths = [
        format!("/api/v1/listings/{id}"),
        "/api/v1/listings".to_owned(),
        "/api/v1/listings/search?q=bicycle".to_owned(),
        format!("/api/v1/variants/{}/stock", listing.variant),
    ];
    for path in &paths {
        let began = Instant::now();
        let refused = ada.query(path)?.consistency_token(&ahead).header("Prefer", "wait=1").send().await?;
        let refused = refused.expect_problem(503, "unavailable")?;
        assert!(refused.header("retry-after").is_some(), "{refused}");
        assert!(began.elapsed() >= Duration::from_millis(700) && began.elapsed() < Duration::from_secs(3), "{path}");
        let stale = ada.query(path)?.consistency_token(&ahead).header("Prefer", "wait=0, stale-ok").send().await?;
        assert_eq!(stale.expect(200)?.header("stale"), Some("?1"), "{path}");
        let fresh = ada.asks(path).await?.expect(200)?;
        assert_eq!(fresh.header("stale"), None, "{path}");
        for malformed in ["", "%", "e30", "bm90IGpzb24", &"A".repeat(2000)] {
            let refused = ada.query(path)?.consistency_token(malformed).send().await?;
            refused.expect_problem(400, "malformed")?;
        }
    }
    market.stop().await
}

#[tokio::test]
async fn a_late_projection_makes_the_query_wait_and_not_lie() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().titled("Before")).await?;
    market.settle().await?;
    let path = format!("/api/v1/listings/{}", listing.id);
    assert_eq!(ada.asks(&path).await?.expect(200)?.value()?["title"], "Before");

    market.projector()?.pause()?;
    let change = ada.command(Method::PATCH, &path)?.if_match("*").json(&json!({ "title": "After" })).send().await?.expect(200)?;
    let token_after_write = token(&change)?;
    let old = ada.query(&path)?.consistency_token(&token_after_write).header("Prefer", "wait=0, stale-ok").send().await?;
    let old = old.expect(200)?;
    assert_eq!((old.header("stale"), &old.value()?["title"]), (Some("?1"), &json!("Before")));

    let waits = ada.query(&path)?.consistency_token(&token_after_write).header("Prefer", "wait=4").send();
    let wakes = async { market.projector()?.wake() };
    let (new, woken) = tokio::join!(waits, wakes);
    woken?;
    assert_eq!(new?.expect(200)?.value()?["title"], "After");
    market.stop().await
}

#[tokio::test]
async fn without_the_broker_no_page_is_older_than_its_store() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().titled("One")).await?;
    market.settle().await?;
    let path = format!("/api/v1/listings/{}", listing.id);
    ada.asks(&path).await?.expect(200)?;
    let hits = async || {
        let hits = market.query_api()?.metric("listings_cache_hits_total", &[("cache_type", "local")]).await?;
        anyhow::Ok(hits.unwrap_or_default())
    };
    until("a hit in the in-process page cache", async || {
        let before = hits().await?;
        ada.asks(&path).await?.expect(200)?;
        Ok(hits().await? > before)
    })
    .await?;

    market.link(Name::QueryApi, 0, Dependency::Nats)?.cut().await?;
    until("the process to bypass its page cache", async || {
        let before = hits().await?;
        ada.asks(&path).await?.expect(200)?;
        ada.asks(&path).await?.expect(200)?;
        Ok(hits().await? <= before)
    })
    .await?;
    ada.changes(listing, json!({ "title": "Two" })).await?;
    market.settle().await?;
    assert_eq!(ada.asks(&path).await?.expect(200)?.value()?["title"], "Two");
    market.link(Name::QueryApi, 0, Dependency::Nats)?.mend().await?;
    market.stop().await
}
