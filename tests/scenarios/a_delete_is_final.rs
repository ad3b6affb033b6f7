//! What is deleted is gone from every read, and nothing that comes late brings it back.

use acceptance::{Marketplace, a_listing};
use events::AggregateKey;

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

    // Everything that was ever said about it comes again, in the order in which it is least expected.
    let of_bicycle = |key: AggregateKey| key.id == bicycle.id.0 || key.id == bicycle.variant.0;
    for message in history.iter().rev().filter(|message| message.key().is_some_and(of_bicycle)) {
        market.inject(message).await?;
    }
    market.settle().await?;
    gone(&market, bicycle).await?;
    // Nor when Redis has forgotten that there ever was anything.
    market.redis.empty().await?;
    gone(&market, bicycle).await?;

    // The id never comes back, and a name of the seller's own is free again.
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
    market.asked_for(listing).await?.expect_problem(404, "not-found")?;
    let path = format!("/api/v1/listings/{}", listing.id);
    for somebody in [market.seller("ada")?, market.admin("root")?] {
        somebody.asks(&path).await?.expect_problem(404, "not-found")?;
        let own = somebody.asks(&format!("/api/v1/listings?seller_id={}", acceptance::people::user("ada"))).await?.expect(200)?;
        assert!(!own.body.contains(&listing.id.to_string()), "{own}");
    }
    assert!(!market.finds("bicycle").await?.contains(&listing.id));
    let stock = market.visitor()?.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?;
    stock.expect_problem(404, "not-found")?;
    Ok(())
}
