//! Each counter of query-api increases when the counted operation happens.

use acceptance::{Marketplace, a_listing, until};

#[tokio::test]
async fn what_query_api_counts_moves() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(1)).await?;
    market.settle().await?;
    let query_api = market.query_api()?;
    until("the in-process page cache to be in use", async || Ok(query_api.status().await?["pages_kept"] == true)).await?;
    let count = async |name: &str, labels: &[(&str, &str)]| {
        let value = query_api.metric(name, labels).await?;
        value.ok_or_else(|| anyhow::anyhow!("{name} {labels:?} is missing in /metrics"))
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
    let answered = |method, path, status| [("method", method), ("path", path), ("status", status)];
    let of_listings = answered("GET", "/api/v1/listings/{id}", "200");
    let before_any = count("listings_http_requests_total", &of_listings).await?;
    until("a hit in the in-process page cache", async || {
        for _ in 0..3 {
            ada.asks(&path).await?.expect(200)?;
        }
        Ok(count(counters[0].0, counters[0].1).await? > before[0])
    })
    .await?;
    let counted = count("listings_http_requests_total", &of_listings).await? - before_any;
    assert!(counted >= 3.0 && counted % 3.0 == 0.0, "{counted} responses with status 200 were counted");
    let took = count("listings_http_request_duration_seconds_count", &of_listings[..2]).await?;
    assert_eq!(took, before_any + counted, "each response has one duration");
    let shared = [("cache_type", "search")];
    let shared_before = count("listings_cache_hits_total", &shared).await?;
    until("two concurrent searches to share one answer", async || {
        let ask = || ada.asks("/api/v1/listings/search?q=shared");
        futures_util::future::try_join(ask(), ask()).await?;
        Ok(count("listings_cache_hits_total", &shared).await? > shared_before)
    })
    .await?;
    ada.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?.expect(200)?;
    ada.asks("/api/v1/listings/search?q=bicycle").await?.expect(200)?;
    ada.asks("/api/v1/listings").await?.expect(200)?;
    ada.asks(&format!("/api/v1/listings/{}", events::ListingId::new())).await?.expect(404)?;
    let missing = answered("GET", "/api/v1/listings/{id}", "404");
    assert_eq!(count("listings_http_requests_total", &missing).await?, 1.0);
    for ((name, labels), before) in counters.into_iter().zip(before) {
        assert!(count(name, labels).await? > before, "{name} {labels:?} did not increase from {before}");
    }
    assert!(count("listings_db_connections_open", &[("pool", "main")]).await? > 0.0);
    market.stop().await
}
