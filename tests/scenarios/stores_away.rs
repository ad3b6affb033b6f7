//! Queries answer from what is left while a store is away, and say so where it makes a difference.

use acceptance::{Dependency, Hold, Marketplace, Moment, Name, a_listing, until, until_eq, until_some};
use events::listing::Point;
use events::{AggregateKey, EventId, Listing, ListingChange, Meta, NewEvent};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

async fn breaker(market: &Marketplace, dependency: &str) -> anyhow::Result<f64> {
    let state = market.query_api()?.metric("listings_circuit_breaker_state", &[("dependency", dependency)]).await?;
    state.ok_or_else(|| anyhow::anyhow!("no breaker of {dependency} is shown"))
}

/// What was asked in vain was counted, and nothing is asked any more but by a probe.
async fn is_left_alone(market: &Marketplace, dependency: &str) -> anyhow::Result<()> {
    let failed = |error_type| [("component", dependency), ("error_type", error_type)];
    until(format!("{dependency} to be left alone"), async || {
        let mut errors = 0.0;
        for error_type in ["failed", "timeout"] {
            errors += market.query_api()?.metric("listings_errors_total", &failed(error_type)).await?.unwrap_or_default();
        }
        market.visitor()?.asks("/api/v1/listings/search?q=nobody+knows").await?;
        market.visitor()?.asks("/api/v1/listings").await?;
        Ok(errors > 0.0 && breaker(market, dependency).await? > 0.0)
    })
    .await
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(2)).await?;
    market.settle().await?;
    market.redis.empty().await?;

    let path = format!("/api/v1/listings/{}", listing.id);
    until("a page that was read to be in Redis again", async || {
        ada.asks(&path).await?.expect(200)?;
        Ok(market.page(listing.id.0).await?.is_some())
    })
    .await?;
    let shown = ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
    assert_eq!(shown.value()?["on_hand"], 2);
    assert!(market.cached_stock(listing.variant.0).await?.is_some());

    // What a reader filled is no obstacle for what comes next.
    ada.changes(listing, json!({ "title": "Changed" })).await?;
    market.settle().await?;
    assert_eq!(market.shows(listing).await?.title, "Changed");
    market.stop().await
}

#[tokio::test]
async fn without_redis_pages_come_from_postgres() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(2)).await?;
    market.settle().await?;
    for break_it in ["cut", "freeze", "vanish"] {
        let redis = market.link(Name::QueryApi, 0, Dependency::Redis)?;
        if break_it == "cut" {
            redis.cut().await?;
        } else {
            redis.freeze();
        }
        for _ in 0..10 {
            ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.expect(200)?;
            ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
        }
        until("the breaker of Redis to open", async || Ok(breaker(&market, "redis").await? > 0.0)).await?;
        ada.asks("/api/v1/listings").await?.expect(200)?;
        ada.asks("/api/v1/listings/search").await?.expect(200)?;
        assert_eq!(market.query_api()?.ops("/ready").await?.0, 200, "Postgres is enough");
        if break_it == "vanish" {
            redis.strand().await?;
        } else {
            redis.mend().await?;
        }
        until_eq("the breaker of Redis to close", 0.0, async || {
            ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
            breaker(&market, "redis").await
        })
        .await?;
    }
    market.stop().await
}

#[tokio::test]
async fn without_postgres_pages_and_searches_still_answer() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(2)).await?;
    market.settle().await?;
    let postgres = market.link(Name::QueryApi, 0, Dependency::Postgres)?;
    for break_it in ["cut", "freeze", "vanish"] {
        if break_it == "cut" {
            postgres.cut().await?;
        } else {
            postgres.freeze();
        }
        ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.expect(200)?;
        ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
        let found = ada.asks("/api/v1/listings/search?q=bicycle").await?.expect(200)?.value()?;
        assert_eq!((&found["total"]["value"], &found["degraded"]), (&json!(1), &json!(false)));
        let refused = ada.asks("/api/v1/listings").await?.expect_problem(503, "unavailable")?;
        assert!(refused.header("retry-after").is_some(), "{refused}");
        assert_eq!(market.query_api()?.ops("/ready").await?.0, 200, "Redis and OpenSearch are enough");
        is_left_alone(&market, "postgres").await?;
        if break_it == "vanish" {
            postgres.strand().await?;
        } else {
            postgres.mend().await?;
        }
        until("lists to come back", async || Ok(ada.asks("/api/v1/listings").await?.status == 200)).await?;
    }
    market.stop().await
}

/// What a search says, without what depends on the store that answered.
fn essence(found: &Value) -> (Vec<String>, u64) {
    let items = found["items"].as_array().into_iter().flatten();
    (
        items.map(|item| item["id"].as_str().unwrap_or_default().to_owned()).collect(),
        found["total"]["value"].as_u64().unwrap_or_default(),
    )
}

#[tokio::test]
async fn without_opensearch_the_same_search_is_answered_by_postgres() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let near = json!({ "country": "RS", "city": "Novi Sad", "point": { "lat": 45.2671, "lon": 19.8335 } });
    let far = json!({ "country": "RS", "city": "Niš", "point": { "lat": 43.3209, "lon": 21.8958 } });
    for (title, amount, currency, colour, place) in [
        ("Red lamp", "10.00", "RSD", "red", &near),
        ("Blue lamp", "20.00", "RSD", "blue", &near),
        ("Green lamp", "30.00", "EUR", "green", &far),
        ("Šešir", "40.00", "RSD", "red", &far),
    ] {
        let attributes = json!([{ "name": "Color", "value": colour }]);
        let draft =
            a_listing().titled(title).priced(amount, currency).with("attributes", attributes).with("location", place.clone());
        ada.publishes(draft.with("description", "").with("brand", "IKEA")).await?;
    }
    market.settle().await?;

    let questions = [
        "",
        "q=lamp&sort=price",
        "q=lamp&sort=-price&currency=EUR",
        "q=%D1%88%D0%B5%D1%88%D0%B8%D1%80",
        "attr.color=red&sort=-created_at",
        "attr.COLOR=red&attr.color=blue&sort=price",
        "near=45.2671,19.8335&radius=10km&sort=price",
        "near=43.3209,21.8958&sort=distance&limit=2",
        "bbox=21,43,22,44&sort=-created_at",
        "price_min=15&price_max=25",
        "brand=IKEA&category=sport&condition=used&tag=outdoor&available=false&sort=-created_at",
        "brand=%27%20or%201%3D1--",
        "q=nothing+like+it",
    ];
    let mut whole = Vec::new();
    for question in questions {
        whole.push(ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?);
    }
    let opensearch = market.link(Name::QueryApi, 0, Dependency::OpenSearch)?;
    // A node that says nothing costs a question its time, and no more.
    opensearch.freeze();
    is_left_alone(&market, "opensearch").await?;
    opensearch.strand().await?;
    until_eq("the breaker of OpenSearch to close", 0.0, async || {
        ada.asks("/api/v1/listings/search?q=lamp").await?.expect(200)?;
        breaker(&market, "opensearch").await
    })
    .await?;
    let first = ada.asks("/api/v1/listings/search?q=lamp&limit=1").await?.expect(200)?.value()?;
    opensearch.cut().await?;
    for (question, whole) in questions.iter().zip(&whole) {
        // An answer that was shared a moment ago may still be.
        let degraded = until_some("an answer from Postgres", async || {
            let found = ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?;
            Ok((found["degraded"] == true).then_some(found))
        })
        .await?;
        assert_eq!(essence(&degraded), essence(whole), "{question}");
    }
    let omitted = ada.asks("/api/v1/listings/search?q=lamp&facets=brand&highlight=1").await?.expect(200)?.value()?;
    assert_eq!(omitted["omitted"], json!(["facets", "highlight"]));
    assert_eq!(omitted["facets"], json!({}));

    // A page of the one store is not continued by the other.
    let cursor = first["next_cursor"].as_str().unwrap_or_default();
    let refused = ada.asks(&format!("/api/v1/listings/search?q=lamp&limit=1&cursor={cursor}")).await?;
    refused.expect_problem(400, "malformed")?;
    let page = until_some("a page from Postgres", async || {
        let found = ada.asks("/api/v1/listings/search?q=lamp&limit=1").await?.expect(200)?.value()?;
        Ok((found["degraded"] == true).then_some(found))
    })
    .await?;
    let cursor = page["next_cursor"].as_str().unwrap_or_default();
    let continued = format!("/api/v1/listings/search?q=lamp&limit=1&cursor={cursor}");
    let second = ada.asks(&continued).await?.expect(200)?.value()?;
    assert_ne!(second["items"][0]["id"], page["items"][0]["id"]);

    opensearch.mend().await?;
    until("searches to be whole again", async || {
        let found = ada.asks("/api/v1/listings/search?q=lamp").await?.expect(200)?.value()?;
        Ok(found["degraded"] == false)
    })
    .await?;
    for (question, whole) in questions.iter().zip(&whole) {
        until(format!("{question} to be answered as before"), async || {
            let found = ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?;
            Ok(found["degraded"] == false && essence(&found) == essence(whole))
        })
        .await?;
    }
    until("the cursor of Postgres to be refused", async || Ok(ada.asks(&continued).await?.status == 400)).await?;
    market.stop().await
}

#[tokio::test]
async fn programs_start_before_their_stores() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().later(Name::QueryApi).start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let dependencies = [Dependency::Postgres, Dependency::Redis, Dependency::OpenSearch, Dependency::Nats];
    for dependency in dependencies {
        market.link(Name::QueryApi, 0, dependency)?.cut().await?;
    }
    market.query_api()?.launch().await?;
    assert_eq!(market.query_api()?.ops("/ready").await?.0, 503);
    ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.expect_problem(503, "unavailable")?;
    ada.asks("/api/v1/listings/search").await?.expect_problem(503, "unavailable")?;
    for dependency in dependencies {
        market.link(Name::QueryApi, 0, dependency)?.mend().await?;
    }
    market.query_api()?.becomes_ready().await?;
    until("the first page", async || Ok(ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.status == 200)).await?;
    market.stop().await
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_refused_and_closes_the_database_for_nobody() -> anyhow::Result<()> {
    /// More than failures in a row open a breaker.
    const QUESTIONS: usize = 8;
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(2)).await?;
    market.settle().await?;
    let mut slow = market.postgres.pool.begin().await?;
    sqlx::query("lock table projection.listings in access exclusive mode").execute(&mut *slow).await?;
    try_join_all((1..=QUESTIONS).map(async |limit| {
        let refused = ada.asks(&format!("/api/v1/listings?limit={limit}")).await?.expect_problem(503, "unavailable")?;
        anyhow::ensure!(refused.header("retry-after").is_some(), "{refused}");
        anyhow::Ok(())
    }))
    .await?;
    assert_eq!(breaker(&market, "postgres").await?, 0.0);
    ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
    slow.rollback().await?;
    ada.asks("/api/v1/listings").await?.expect(200)?;
    market.stop().await
}

#[tokio::test]
async fn connections_that_never_say_another_word_are_replaced() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 2;
    let few = Marketplace::builder().linked().setting(Name::QueryApi, "DATABASE_MAX_CONNECTIONS", CONNECTIONS);
    let market = few.start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    let postgres = market.link(Name::QueryApi, 0, Dependency::Postgres)?;
    let hang = |_| postgres.hold(Moment::statement("from projection.listings"));
    let hanging: Vec<Hold> = (0..CONNECTIONS).map(hang).collect();
    let asked = (0..CONNECTIONS).map(async |at| ada.asks(&format!("/api/v1/listings?limit={}", at + 1)).await);
    for answer in try_join_all(asked).await? {
        answer.expect_problem(503, "unavailable")?;
    }
    assert!(hanging.iter().all(Hold::is_reached));
    until("lists to come back", async || Ok(ada.asks("/api/v1/listings").await?.status == 200)).await?;
    drop(hanging);
    market.stop().await
}

#[tokio::test]
async fn places_too_close_to_zero_to_be_squared_are_zero() -> anyhow::Result<()> {
    const TINY: f64 = 5e-324;
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let place = json!({ "country": "GH", "point": { "lat": TINY, "lon": 0 } });
    let published = ada.publishes(a_listing().with("location", place)).await?;
    market.settle().await?;
    let shown = market.shows(published).await?;
    assert_eq!(shown.location.as_ref().and_then(|location| location.point), Some(Point { lat: 0.0, lon: 0.0 }));

    // From before coordinates were rounded.
    let mut old = Listing { id: Uuid::now_v7().into(), version: 1, ..shown };
    old.location.as_mut().unwrap().point = Some(Point { lat: TINY, lon: -TINY });
    let meta = Meta {
        id: EventId::new(),
        key: AggregateKey::listing(old.id),
        version: 1,
        time: old.updated_at,
        caused_by: None,
        correlation_id: None,
        trace_parent: None,
    };
    let change = ListingChange::Updated { fields: vec!["location".to_owned()] };
    market.publish_event(&NewEvent { meta, change: &change, state: Some(&old) }.encode()?).await?;
    market.settle().await?;

    let opensearch = market.link(Name::QueryApi, 0, Dependency::OpenSearch)?;
    let near = [format!("0.{}5,0", "0".repeat(323)), "0,0".to_owned(), "0.0000000001,-0.0000000001".to_owned()];
    for degraded in [false, true] {
        if degraded {
            opensearch.cut().await?;
        }
        for near in &near {
            let question = format!("/api/v1/listings/search?near={near}&radius=1km&sort=distance");
            let found = until_some("an answer of the store that is meant", async || {
                let found = ada.asks(&question).await?.expect(200)?.value()?;
                Ok((found["degraded"] == degraded).then_some(found))
            })
            .await?;
            assert_eq!(found["total"]["value"], 2, "{question}");
        }
    }
    opensearch.mend().await?;
    market.stop().await
}
