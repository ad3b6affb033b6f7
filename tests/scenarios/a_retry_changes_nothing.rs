//! A request that is retried with the same `Idempotency-Key` is executed once, and each retry gets the first response.

use acceptance::{Answer, Marketplace, Name, Person, a_listing};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

const LISTINGS: &str = "/api/v1/listings";

async fn posts(person: &Person<'_>, path: &str, key: &str, body: &Value) -> anyhow::Result<Answer> {
    person.command(Method::POST, path)?.idempotency_key(key).json(body).send().await
}

/// Sends a request, and retries while an earlier one with the same key is in progress.
async fn insists(person: &Person<'_>, path: &str, key: &str, body: &Value) -> anyhow::Result<Answer> {
    loop {
        let answer = posts(person, path, key, body).await?;
        if answer.status != 409 {
            return Ok(answer);
        }
        answer.expect_problem(409, "in-progress")?;
    }
}

#[tokio::test]
async fn an_idempotent_retry_gets_the_first_answer() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let (ada, bob) = (market.seller("ada")?, market.seller("bob")?);
    let draft = a_listing().with_stock(5).0;
    let other = a_listing().titled("Something else").0;

    let first = posts(&ada, LISTINGS, "\"order-1\"", &draft).await?.expect(201)?;
    assert_eq!(first.header("idempotency-replayed"), None);
    // The replayed response is the first one: it does not show later changes.
    let listing: events::Listing = first.json()?;
    ada.changes(listing.id, json!({ "title": "Sold to a friend" })).await?;
    // A quoted and an unquoted key are equal.
    let again = posts(&ada, LISTINGS, "order-1", &draft).await?.expect(201)?;
    assert_eq!(again.header("idempotency-replayed"), Some("?1"));
    assert_eq!(again.value()?, first.value()?);
    for name in ["etag", "location", "consistency-token"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }

    // A finished request does not block the next one with the same key.
    for _ in 0..20 {
        posts(&ada, LISTINGS, "order-1", &draft).await?.expect(201)?;
        posts(&ada, LISTINGS, "order-1", &json!({ "title": "" })).await?.expect_problem(422, "invalid")?;
        posts(&ada, LISTINGS, "order-1", &other).await?.expect_problem(422, "idempotency-mismatch")?;
    }

    // Another body with the same key is refused. Keys are separate for each caller and each route.
    posts(&ada, LISTINGS, "order-1", &other).await?.expect_problem(422, "idempotency-mismatch")?;
    let of_bob = posts(&bob, LISTINGS, "order-1", &draft).await?.expect(201)?;
    assert_ne!(of_bob.value()?["id"], first.value()?["id"]);
    let movements = format!("/api/v1/variants/{}/movements", listing.variants[0].id);
    let movement = json!({ "type": "out", "quantity": 2 });
    let moved = posts(&ada, &movements, "order-1", &movement).await?.expect(201)?;
    let moved_again = posts(&ada, &movements, "order-1", &movement).await?.expect(201)?;
    assert_eq!(moved.value()?, moved_again.value()?);

    // A refused request does not store its key, so that the key can be used again.
    posts(&ada, LISTINGS, "order-2", &json!({ "title": "" })).await?.expect_problem(422, "invalid")?;
    posts(&ada, LISTINGS, "order-2", &draft).await?.expect(201)?;
    let too_many = json!({ "type": "out", "quantity": 100 });
    posts(&ada, &movements, "order-3", &too_many).await?.expect_problem(409, "insufficient-stock")?;
    posts(&ada, &movements, "order-3", &json!({ "type": "out", "quantity": 1 })).await?.expect(201)?;

    // A stored key is replayed before `If-Match` is checked.
    let pause = format!("/api/v1/listings/{}/pause", listing.id);
    let paused = ada.command(Method::POST, &pause)?.idempotency_key("order-4").if_match("*").send().await?.expect(200)?;
    let without = ada.command(Method::POST, &pause)?.idempotency_key("order-4").send().await?.expect(200)?;
    assert_eq!(paused.value()?, without.value()?);

    // Malformed keys are refused.
    for bad in ["", "\"\"", "\"unclosed", &"k".repeat(256)] {
        posts(&ada, LISTINGS, bad, &draft).await?.expect_problem(400, "malformed")?;
    }
    market.settle().await?;
    let left = ada.asks(&format!("/api/v1/variants/{}/stock", listing.variants[0].id)).await?.expect(200)?;
    assert_eq!(left.value()?["on_hand"], 2);
    market.stop().await
}

#[tokio::test]
async fn ten_retries_at_once_make_one_listing_and_one_movement() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).start().await?;
    // Requests alternate between two processes.
    let ways = [market.seller("ada")?, market.seller("ada")?.through(market.program(Name::CommandApi, 1)?)];
    let draft = a_listing().with_stock(50).0;
    for round in 0..5 {
        let key = format!("round-{round}");
        let answers = try_join_all((0..10).map(|turn| insists(&ways[turn % 2], LISTINGS, &key, &draft))).await?;
        let first = answers[0].value()?;
        for answer in answers {
            assert_eq!(answer.clone().expect(201)?.value()?, first);
        }
        let movements = format!("/api/v1/variants/{}/movements", first["variants"][0]["id"].as_str().unwrap_or_default());
        let out = json!({ "type": "out", "quantity": 7 });
        for answer in try_join_all((0..10).map(|turn| insists(&ways[turn % 2], &movements, &key, &out))).await? {
            assert_eq!(answer.expect(201)?.value()?["on_hand"], 43);
        }
    }
    let created = market.journal().await?.iter().filter(|entry| entry.event_type == "listing.created.v1").count();
    assert_eq!(created, 5);
    market.stop().await
}
