//! A listing is available while one of its variants is, also when its last two variants sell out concurrently.

use acceptance::{Marketplace, Name, a_listing};
use futures_util::future::{try_join, try_join_all};

/// Number of concurrent attempts. With a wrong lock order, a few of them already show the lost update.
const RACES: usize = 24;

#[tokio::test]
async fn two_variants_reach_zero_together() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).start().await?;
    let ada = market.seller("ada")?;
    let elsewhere = ada.through(market.program(Name::CommandApi, 1)?);

    let race = async || -> anyhow::Result<_> {
        let created = ada.creates(&a_listing().in_variants(&["small", "large"])).await?.expect(201)?;
        let listing: events::Listing = created.json()?;
        let (small, large) = (listing.variants[0].id, listing.variants[1].id);
        try_join(ada.counts(small, 1), elsewhere.counts(large, 1)).await?;
        let (one, other) = try_join(ada.moves(small, "out", 1), elsewhere.moves(large, "out", 1)).await?;
        one.expect(201)?;
        other.expect(201)?;
        Ok(listing.id)
    };
    let listings = try_join_all((0..RACES).map(|_| race())).await?;
    market.settle().await?;
    for &listing in &listings {
        let shown = market.shows(listing).await?;
        assert!(!shown.available && shown.variants.iter().all(|variant| !variant.available), "{shown:?}");
    }

    // New stock of one variant makes the listing available again.
    let last = market.shows(listings[0]).await?;
    ada.counts(last.variants[1].id, 7).await?;
    market.settle().await?;
    let shown = market.shows(last.id).await?;
    assert!(shown.available && !shown.variants[0].available && shown.variants[1].available, "{shown:?}");
    market.stop().await
}
