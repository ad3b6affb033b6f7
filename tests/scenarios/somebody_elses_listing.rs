//! Only its seller and an admin can change a listing and its stock; to others a hidden listing does not exist (404).

use acceptance::listings::Published;
use acceptance::{Answer, Marketplace, Person, a_listing};
use reqwest::Method;
use serde_json::{Value, json};

/// Returns every request that changes a listing or its stock.
fn changes(listing: Published) -> Vec<(Method, String, Option<Value>)> {
    let (path, variant) = (format!("/api/v1/listings/{}", listing.id), format!("/api/v1/variants/{}", listing.variant));
    vec![
        (Method::PATCH, path.clone(), Some(json!({ "title": "Mine now" }))),
        (Method::PUT, path.clone(), Some(a_listing().titled("Mine now").0)),
        (Method::POST, format!("{path}/publish"), None),
        (Method::POST, format!("{path}/pause"), None),
        (Method::POST, format!("{path}/archive"), None),
        (Method::DELETE, path, None),
        (Method::PUT, format!("{variant}/stock"), Some(json!({ "on_hand": 0 }))),
        (Method::POST, format!("{variant}/movements"), Some(json!({ "type": "out", "quantity": 1 }))),
    ]
}

async fn tries(person: &Person<'_>, (method, path, body): &(Method, String, Option<Value>)) -> anyhow::Result<Answer> {
    person.command(method.clone(), path)?.if_match("*").optional_json(body.as_ref()).send().await
}

#[tokio::test]
async fn somebody_elses_listing_cannot_be_changed() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let (ada, mallory) = (market.seller("ada")?, market.seller("mallory")?);
    let buyer = market.somebody("bob", &["user"])?;
    let shown = ada.publishes(a_listing().with_stock(5)).await?;
    let hidden = ada.publishes(a_listing().with_stock(5).as_draft()).await?;
    let private = ada.publishes(a_listing().with_stock(5).with("visibility", "private")).await?;

    let expired = market.keys.sign(&json!({ "sub": mallory.id, "roles": ["admin"], "exp": 1_000_000_000 }))?;
    let without_roles = market.keys.sign(&json!({ "sub": mallory.id, "exp": 4_000_000_000_u64 }))?;
    let forged = format!("{}x", market.keys.token(ada.id, &["admin"])?);
    for change in changes(shown) {
        for token in [None, Some(""), Some("rubbish"), Some(&*expired), Some(&*without_roles), Some(&*forged)] {
            let answer = tries(&mallory.with_token(token), &change).await?.expect_problem(401, "unauthenticated")?;
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{answer}");
        }
        tries(&mallory, &change).await?.expect_problem(403, "forbidden")?;
        tries(&buyer, &change).await?.expect_problem(403, "forbidden")?;
    }
    for change in changes(hidden).into_iter().chain(changes(private)) {
        tries(&mallory, &change).await?.expect_problem(404, "not-found")?;
    }
    // Only an admin can create a listing for another seller.
    let in_adas_name = a_listing().with("seller_id", ada.id.to_string());
    mallory.creates(&in_adas_name).await?.expect_problem(403, "forbidden")?;
    buyer.creates(&a_listing()).await?.expect_problem(403, "forbidden")?;
    let by_admin = market.admin("root")?.creates(&in_adas_name).await?.expect(201)?;
    assert_eq!(by_admin.value()?["seller_id"], ada.id.to_string());

    market.settle().await?;
    for (listing, versions) in [(shown, 1), (hidden, 1), (private, 1)] {
        let key = events::AggregateKey::listing(listing.id);
        assert_eq!(market.versions_in_stream(key).await?.len(), versions, "{key}");
    }
    assert_eq!(market.stock(shown.variant).await?.on_hand, 5);
    // An admin can make the changes that mallory cannot.
    let admin = market.admin("root")?;
    assert_eq!(admin.changes(hidden, json!({ "title": "Checked" })).await?.title, "Checked");
    tries(&admin, &changes(shown)[7]).await?.expect(201)?;
    market.stop().await
}
