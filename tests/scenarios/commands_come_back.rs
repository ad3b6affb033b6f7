//! Commands end in time while Postgres says nothing, and succeed again once it can be reached.

use acceptance::{Dependency, Marketplace, Name, a_listing, until};
use futures_util::future::try_join_all;

#[tokio::test]
async fn a_postgres_that_vanishes_without_a_word_is_found_where_it_comes_back() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().setting(Name::CommandApi, "DATABASE_MAX_CONNECTIONS", "2").start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    let postgres = market.link(Name::CommandApi, 0, Dependency::Postgres)?;

    // What is connected now stays frozen for good; new connections work afterwards.
    postgres.freeze();
    let draft = a_listing().titled("Nobody knows");
    let answers = try_join_all((0..4).map(|_| ada.creates(&draft))).await?;
    for answer in &answers {
        assert!(matches!(answer.status.as_u16(), 503 | 504), "{answer}");
    }
    postgres.strand().await?;

    until("a command to succeed", async || Ok(ada.creates(&a_listing()).await?.status == 201)).await?;
    ada.changes(listing, serde_json::json!({ "title": "Changed" })).await?;
    market.settle().await?;
    assert_eq!(market.shows(listing).await?.title, "Changed");
    market.stop().await
}
