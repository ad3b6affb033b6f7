//! A published listing can be read by its id, in lists, by search, and with its stock.

use acceptance::{Marketplace, a_listing};

#[tokio::test]
async fn a_created_listing_is_found_by_id_list_search_and_stock() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let draft = a_listing().titled("Mountain bicycle Panther").with_stock(5);
    let created = ada.creates(&draft).await?.expect(201)?;
    let listing: events::Listing = created.json()?;
    assert_eq!(created.version()?, 1);
    assert_eq!(created.header("location"), Some(format!("/api/v1/listings/{}", listing.id).as_str()));

    // A query with the consistency token of the command sees it immediately: query-api waits for the projection.
    let token = created.header("consistency-token").unwrap_or_default();
    let path = format!("/api/v1/listings/{}", listing.id);
    let seen = ada.query(&path)?.consistency_token(token).send().await?.expect(200)?;
    assert_eq!((seen.version()?, seen.json::<events::Listing>()?), (1, listing.clone()));
    let found = ada.query("/api/v1/listings/search?q=panther")?.consistency_token(token).send().await?.expect(200)?;
    assert_eq!(found.value()?["items"][0]["id"], listing.id.to_string());

    // Without a token, it is visible once the projections have applied it.
    market.settle().await?;
    assert_eq!(market.shows(listing.id).await?, listing);
    assert_eq!(market.found_by("/api/v1/listings", &[("brand", "Capriolo")]).await?, [listing.id]);
    assert_eq!(market.found_by("/api/v1/listings", &[("brand", "Bianchi")]).await?, []);
    assert_eq!(market.finds("panther").await?, [listing.id]);
    assert_eq!(market.finds("trombone").await?, []);
    let stock = market.stock(listing.variants[0].id).await?;
    assert_eq!((stock.listing_id, stock.on_hand, stock.available, stock.version), (listing.id, 5, 5, 1));
    market.stop().await
}

#[tokio::test]
async fn what_becomes_private_is_in_no_list_any_more() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let bicycle = ada.publishes(a_listing().titled("Bicycle Panther")).await?;
    market.settle().await?;
    assert_eq!(market.found_by("/api/v1/listings", &[]).await?, [bicycle.id]);
    market.shows(bicycle).await?;

    for visibility in ["private", "unlisted"] {
        ada.changes(bicycle, serde_json::json!({ "visibility": visibility })).await?;
        market.settle().await?;
        assert_eq!(market.found_by("/api/v1/listings", &[]).await?, [], "{visibility}");
        assert_eq!(market.finds("panther").await?, [], "{visibility}");
        let status = if visibility == "private" { 404 } else { 200 };
        assert_eq!(market.get_listing(bicycle).await?.status, status, "{visibility}");
    }
    ada.changes(bicycle, serde_json::json!({ "visibility": "public" })).await?;
    market.settle().await?;
    assert_eq!(
        (market.found_by("/api/v1/listings", &[]).await?, market.finds("panther").await?),
        (vec![bicycle.id], vec![bicycle.id])
    );
    market.stop().await
}

#[tokio::test]
async fn quick_successive_updates_end_on_the_last_version_in_every_store() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let bicycle = ada.publishes(a_listing().with_stock(1)).await?;
    // No wait between the updates, so that the projections apply earlier ones while later ones are made.
    for kilometres in 1..=40 {
        let patch = serde_json::json!({
            "title": format!("Bicycle, {kilometres} km ridden"), "brand": format!("Brand {kilometres}"), "tags": [format!("tag-{kilometres}")],
            "category": format!("sport/{kilometres}"), "price": { "amount": format!("{kilometres}.50"), "currency": "EUR" },
            "location": { "point": { "lat": kilometres, "lon": 20 } },
        });
        ada.changes(bicycle, patch).await?;
        ada.counts(bicycle.variant, kilometres % 3).await?;
    }
    market.settle().await?;

    let shown = market.shows(bicycle).await?;
    assert_eq!(shown.title, "Bicycle, 40 km ridden");
    assert_eq!(market.stock(bicycle.variant).await?.on_hand, 40 % 3);
    assert_eq!(market.finds("ridden 40").await?, [bicycle.id]);
    for (name, before, now) in
        [("brand", "Brand 39", "Brand 40"), ("tag", "tag-39", "tag-40"), ("category", "sport/39", "sport/40")]
    {
        for path in ["/api/v1/listings", "/api/v1/listings/search"] {
            assert_eq!(market.found_by(path, &[(name, before)]).await?, [], "{path} {name}");
            assert_eq!(market.found_by(path, &[(name, now)]).await?, [bicycle.id], "{path} {name}");
        }
    }
    // `stop` checks that every store has this version with the same content.
    market.stop().await
}
