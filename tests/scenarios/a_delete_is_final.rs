//! A deleted listing disappears from every read, and no redelivered event restores it.

use acceptance::{Marketplace, a_listing, until};
use events::AggregateKey;
use views::listing_page::{FILL_TTL, TOMBSTONE_TTL, listing_key};

#[tokio::test]
async fn a_delete_disappears_everywhere_and_an_old_event_does_not_bring_it_back() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let bicycle = ada.publishes(a_listing().titled("Bicycle Panther").with_stock(3)).await?;
    ada.changes(bicycle, serde_json::json!({ "price": { "amount": "19900.00", "currency": "RSD" } })).await?;
    let drum = ada.publishes(a_listing().titled("Drum Panther").with("external_id", "drum-1")).await?;
    market.settle().await?;
    let history = market.stream().await?;

    ada.deletes(bicycle).await?;
    market.settle().await?;
    gone(&market, bicycle).await?;
    assert_eq!(market.finds("panther").await?, [drum.id]);

    // All its earlier events are redelivered, newest first.
    let of_bicycle = |key: AggregateKey| key.id == bicycle.id.0 || key.id == bicycle.variant.0;
    for message in history.iter().rev().filter(|message| message.key().is_some_and(of_bicycle)) {
        market.inject(message).await?;
    }
    market.settle().await?;
    gone(&market, bicycle).await?;
    // It stays deleted when Redis has lost the tombstone.
    market.redis.empty().await?;
    gone(&market, bicycle).await?;

    // A second delete finds nothing, and the external id can be used again.
    ada.command(reqwest::Method::DELETE, &format!("/api/v1/listings/{}", bicycle.id))?
        .if_match("*")
        .send()
        .await?
        .expect_problem(404, "not-found")?;
    ada.deletes(drum).await?;
    ada.publishes(a_listing().with("external_id", "drum-1")).await?;
    market.stop().await
}

async fn gone(market: &Marketplace, listing: acceptance::listings::Published) -> anyhow::Result<()> {
    market.get_listing(listing).await?.expect_problem(404, "not-found")?;
    let path = format!("/api/v1/listings/{}", listing.id);
    for user in [market.seller("ada")?, market.admin("root")?] {
        user.asks(&path).await?.expect_problem(404, "not-found")?;
        let own = user.asks(&format!("/api/v1/listings?seller_id={}", acceptance::people::user("ada"))).await?.expect(200)?;
        assert!(!own.body.contains(&listing.id.to_string()), "{own}");
    }
    assert!(!market.finds("bicycle").await?.contains(&listing.id));
    let stock = market.visitor()?.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?;
    stock.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test]
async fn a_tombstone_outlives_every_event_that_may_still_come() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    ada.deletes(listing).await?;
    market.settle().await?;
    let key = listing_key(market.serving("listing_page").await?, listing.id);
    let lives = async || -> anyhow::Result<i64> {
        Ok(redis::cmd("PTTL").arg(&key).query_async(&mut market.redis.connection().await?).await?)
    };
    let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap();
    let long = millis(TOMBSTONE_TTL) / 2..=millis(TOMBSTONE_TTL);
    assert!(long.contains(&lives().await?));

    // A read stores the tombstone again, with a short lifetime.
    market.redis.empty().await?;
    let path = format!("/api/v1/listings/{}", listing.id);
    until("a read to store the tombstone", async || {
        ada.asks(&path).await?.expect_problem(404, "not-found")?;
        Ok((1..=millis(FILL_TTL)).contains(&lives().await?))
    })
    .await?;
    // The projector then overwrites it with its own tombstone, which has the long lifetime.
    let history = market.stream().await?;
    let deleted = history.iter().rfind(|message| message.key() == Some(AggregateKey::listing(listing.id)));
    market.inject(deleted.unwrap()).await?;
    market.settle().await?;
    assert!(long.contains(&lives().await?));
    market.stop().await
}
