//! Searches find what people meant, on a real catalogue that people have graded, and things that are known to be in it.
//!
//! The data is not part of the project: without it (`LISTINGS_DATA`, by default `../shared/data` beside the project) nothing
//! is judged, and the scenario says so. `docs/SEARCH.md` has what was measured when the shape was chosen.

mod catalogue;
mod grades;
mod known_items;

use acceptance::{Marketplace, Name};

use catalogue::Catalogue;
use reqwest::Url;

/// How many of the first hits are judged.
const JUDGED: usize = 10;

// What the shape that ships reached, less what another order of the documents may cost (± .002) and some air.
const NDCG: f64 = 0.85;
const MRR: f64 = 0.89;

#[tokio::test]
async fn searches_find_what_people_meant() -> anyhow::Result<()> {
    let Some(data) = catalogue::data() else {
        eprintln!("skipped: the Icecat catalogue is not here; LISTINGS_DATA says where it is");
        return Ok(());
    };
    // Documents go straight into the index, as `views` writes them: what is judged is how they are found.
    let market = Box::pin(Marketplace::builder().later(Name::CommandApi).later(Name::Projector).start()).await?;
    let catalogue = Catalogue::load(&data)?;
    catalogue.index(&market).await?;

    let graded = grades::judge(&market, &data).await?;
    println!("{graded}");
    assert!(graded.ndcg >= NDCG && graded.mrr >= MRR && graded.without_hits == 0, "{graded}");

    for suite in known_items::suites(&catalogue) {
        let mrr = suite.judge(&market).await?;
        println!("{}: MRR@10 {mrr:.3} over {} queries", suite.name, suite.queries.len());
        assert!(mrr >= suite.least, "{}: MRR@10 {mrr:.3} is below {}", suite.name, suite.least);
    }
    market.discard().await
}

/// The external ids of the first hits.
async fn hits(market: &Marketplace, words: &str) -> anyhow::Result<Vec<String>> {
    let encoded = Url::parse_with_params("http://query-api", [("q", words)])?;
    let path = format!("/api/v1/listings/search?limit={JUDGED}&{}", encoded.query().unwrap_or_default());
    let found = market.visitor()?.asks(&path).await?.expect(200)?.value()?;
    anyhow::ensure!(found["degraded"] == false, "OpenSearch did not answer in time: there is nothing to judge");
    let items = found["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["external_id"].as_str()).map(str::to_owned).collect())
}

/// One over the place of the first hit that is right; 0 without one.
fn reciprocal_rank(hits: &[String], is_right: impl Fn(&str) -> bool) -> f64 {
    let places = std::iter::successors(Some(1.0), |place| Some(place + 1.0));
    hits.iter().zip(places).find(|(hit, _)| is_right(hit)).map_or(0.0, |(_, place)| 1.0 / place)
}

fn mean(values: &[f64]) -> f64 {
    let count: f64 = values.iter().map(|_| 1.0).sum();
    values.iter().sum::<f64>() / count
}
