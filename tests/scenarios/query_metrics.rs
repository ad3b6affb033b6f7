//! What query-api counts moves when it does what is counted.

use acceptance::{Marketplace, a_listing, until};

#[tokio::test]
async fn what_query_api_counts_moves() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(1)).await?;
    market.settle().await?;
    let query_api = market.query_api()?;
    until("pages to be kept in the process", async || Ok(query_api.status().await?["pages_kept"] == true)).await?;
    let count = async |name: &str, labels: &[(&str, &str)]| {
        let value = query_api.metric(name, labels).await?;
        value.ok_or_else(|| anyhow::anyhow!("{name} {labels:?} is not shown"))
    };
    for dependency in ["postgres", "redis", "opensearch"] {
        assert_eq!(count("listings_circuit_breaker_state", &[("dependency", dependency)]).await?, 0.0);
    }
    let counters: [(&str, &[(&str, &str)]); 7] = [
        ("listings_cache_hits_total", &[("cache_type", "local")]),
        ("listings_cache_misses_total", &[("cache_type", "local")]),
        ("listings_cache_hits_total", &[("cache_type", "redis")]),
        ("listings_cache_misses_total", &[("cache_type", "redis")]),
        ("listings_searched_total", &[]),
        ("listings_db_query_duration_seconds_count", &[("operation", "list_listings")]),
        ("listings_db_query_duration_seconds_count", &[("operation", "get_listing")]),
    ];
    let mut before = Vec::new();
    for (name, labels) in counters {
        before.push(count(name, labels).await?);
    }

    let path = format!("/api/v1/listings/{}", listing.id);
    for _ in 0..3 {
        ada.asks(&path).await?.expect(200)?;
    }
    ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
    ada.asks("/api/v1/listings/search?q=bicycle").await?.expect(200)?;
    ada.asks("/api/v1/listings").await?.expect(200)?;
    ada.asks(&format!("/api/v1/listings/{}", events::ListingId::new())).await?.expect(404)?;
    for ((name, labels), before) in counters.into_iter().zip(before) {
        assert!(count(name, labels).await? > before, "{name} {labels:?} did not move from {before}");
    }
    assert!(count("listings_db_connections_open", &[("pool", "main")]).await? > 0.0);
    market.stop().await
}
