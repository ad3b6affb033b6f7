//! Queries fall back to the remaining stores while one store is unavailable, and mark degraded answers.

use acceptance::{Dependency, Hold, Link, Marketplace, Moment, Name, a_listing, until, until_eq, until_some};
use events::listing::Point;
use events::{AggregateKey, EventId, Listing, ListingChange, Meta, NewEvent};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

/// Returns the state of a circuit breaker of query-api: 0 is closed.
async fn breaker(market: &Marketplace, dependency: &str) -> anyhow::Result<f64> {
    let state = market.query_api()?.metric("listings_circuit_breaker_state", &[("dependency", dependency)]).await?;
    state.ok_or_else(|| anyhow::anyhow!("the circuit breaker of {dependency} is missing in /metrics"))
}

/// Sends queries until the failed requests to a store are counted and its circuit breaker is not closed.
async fn until_breaker_opens(market: &Marketplace, dependency: &str) -> anyhow::Result<()> {
    let failed = |error_type| [("component", dependency), ("error_type", error_type)];
    until(format!("the circuit breaker of {dependency} to open"), async || {
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

/// A way in which a store becomes unavailable and returns.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// The server refuses connections, as if it were not running.
    Refused,
    /// The server hangs and continues later, with the same connections.
    Frozen,
    /// The server hangs; later only new connections work, the old ones hang forever.
    Replaced,
}

impl Outage {
    const ALL: [Self; 3] = [Self::Refused, Self::Frozen, Self::Replaced];

    async fn begin(self, link: &Link) -> anyhow::Result<()> {
        match self {
            Self::Refused => link.cut().await?,
            Self::Frozen | Self::Replaced => link.freeze(),
        }
        Ok(())
    }

    async fn end(self, link: &Link) -> anyhow::Result<()> {
        match self {
            Self::Refused | Self::Frozen => link.mend().await,
            Self::Replaced => link.strand().await,
        }
    }
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(2)).await?;
    market.settle().await?;
    market.redis.empty().await?;

    let path = format!("/api/v1/listings/{}", listing.id);
    until("a read to store the page in Redis again", async || {
        ada.asks(&path).await?.expect(200)?;
        Ok(market.page(listing.id.0).await?.is_some())
    })
    .await?;
    let shown = ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
    assert_eq!(shown.value()?["on_hand"], 2);
    assert!(market.cached_stock(listing.variant.0).await?.is_some());

    // A page that a read has stored does not prevent the next event from being applied.
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
    for outage in Outage::ALL {
        let redis = market.link(Name::QueryApi, 0, Dependency::Redis)?;
        outage.begin(redis).await?;
        for _ in 0..10 {
            ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.expect(200)?;
            ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
        }
        until("the circuit breaker of Redis to open", async || Ok(breaker(&market, "redis").await? > 0.0)).await?;
        ada.asks("/api/v1/listings").await?.expect(200)?;
        ada.asks("/api/v1/listings/search").await?.expect(200)?;
        assert_eq!(market.query_api()?.ops("/ready").await?.0, 200, "ready without Redis");
        outage.end(redis).await?;
        until_eq("the circuit breaker of Redis to close", 0.0, async || {
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
    for outage in Outage::ALL {
        outage.begin(postgres).await?;
        ada.asks(&format!("/api/v1/listings/{}", listing.id)).await?.expect(200)?;
        ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
        let found = ada.asks("/api/v1/listings/search?q=bicycle").await?.expect(200)?.value()?;
        assert_eq!((&found["total"]["value"], &found["degraded"]), (&json!(1), &json!(false)));
        let refused = ada.asks("/api/v1/listings").await?.expect_problem(503, "unavailable")?;
        assert!(refused.header("retry-after").is_some(), "{refused}");
        assert_eq!(market.query_api()?.ops("/ready").await?.0, 200, "ready without Postgres");
        until_breaker_opens(&market, "postgres").await?;
        outage.end(postgres).await?;
        until("lists to be answered again", async || Ok(ada.asks("/api/v1/listings").await?.status == 200)).await?;
    }
    market.stop().await
}

/// Returns the ids and the total of a search result: the parts that do not depend on the store that answered.
fn ids_and_total(found: &Value) -> (Vec<String>, u64) {
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
    let mut complete = Vec::new();
    for question in questions {
        complete.push(ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?);
    }
    let opensearch = market.link(Name::QueryApi, 0, Dependency::OpenSearch)?;
    // While OpenSearch hangs, searches wait for a timeout until the circuit breaker opens.
    opensearch.freeze();
    until_breaker_opens(&market, "opensearch").await?;
    opensearch.strand().await?;
    until_eq("the circuit breaker of OpenSearch to close", 0.0, async || {
        ada.asks("/api/v1/listings/search?q=lamp").await?.expect(200)?;
        breaker(&market, "opensearch").await
    })
    .await?;
    let first = ada.asks("/api/v1/listings/search?q=lamp&limit=1").await?.expect(200)?.value()?;
    opensearch.cut().await?;
    for (question, complete) in questions.iter().zip(&complete) {
        // A cached answer of OpenSearch may still be returned at first.
        let degraded = until_some("an answer from Postgres", async || {
            let found = ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?;
            Ok((found["degraded"] == true).then_some(found))
        })
        .await?;
        assert_eq!(ids_and_total(&degraded), ids_and_total(complete), "{question}");
    }
    let omitted = ada.asks("/api/v1/listings/search?q=lamp&facets=brand&highlight=1").await?.expect(200)?.value()?;
    assert_eq!(omitted["omitted"], json!(["facets", "highlight"]));
    assert_eq!(omitted["facets"], json!({}));

    // A cursor of one store is refused by the other.
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
    until("searches to be answered by OpenSearch again", async || {
        let found = ada.asks("/api/v1/listings/search?q=lamp").await?.expect(200)?.value()?;
        Ok(found["degraded"] == false)
    })
    .await?;
    for (question, complete) in questions.iter().zip(&complete) {
        until(format!("{question} to be answered as before the outage"), async || {
            let found = ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value()?;
            Ok(found["degraded"] == false && ids_and_total(&found) == ids_and_total(complete))
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
    /// More than the number of failures in a row that opens a circuit breaker.
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
    until("lists to be answered again", async || Ok(ada.asks("/api/v1/listings").await?.status == 200)).await?;
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

    // An event from before coordinates were rounded.
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
            let found = until_some("an answer of the expected store", async || {
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
