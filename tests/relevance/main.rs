//! Measures search relevance on a real catalogue: with graded queries, and with queries generated from known products.
//!
//! The data is not part of the project. It is read from the folder `LISTINGS_DATA`, by default `../shared/data` beside the
//! project; if it is missing, the test prints that it is skipped. `docs/SEARCH.md` has the measurements behind the current
//! query shape.

mod catalogue;
mod grades;
mod known_items;

use acceptance::{Marketplace, Name};

use catalogue::Catalogue;
use reqwest::Url;

/// Number of top hits that are judged.
const JUDGED: usize = 10;

// Lower bounds: the values of the current query shape, minus the variation from another document order (± .002) and a margin.
const NDCG: f64 = 0.85;
const MRR: f64 = 0.89;

#[tokio::test]
async fn searches_find_what_people_meant() -> anyhow::Result<()> {
    let Some(data) = catalogue::data() else {
        eprintln!("skipped: the Icecat catalogue was not found; set LISTINGS_DATA to its folder");
        return Ok(());
    };
    // Documents are written directly into the index, as `views` builds them; only the search is under test.
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

/// Returns the external ids of the top hits.
async fn hits(market: &Marketplace, words: &str) -> anyhow::Result<Vec<String>> {
    let encoded = Url::parse_with_params("http://query-api", [("q", words)])?;
    let path = format!("/api/v1/listings/search?limit={JUDGED}&{}", encoded.query().unwrap_or_default());
    let found = market.visitor()?.asks(&path).await?.expect(200)?.value()?;
    anyhow::ensure!(found["degraded"] == false, "the search was answered by Postgres, because OpenSearch did not answer in time");
    let items = found["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["external_id"].as_str()).map(str::to_owned).collect())
}

/// Returns the reciprocal rank of the first correct hit, or 0 if there is none.
fn reciprocal_rank(hits: &[String], is_right: impl Fn(&str) -> bool) -> f64 {
    let places = std::iter::successors(Some(1.0), |place| Some(place + 1.0));
    hits.iter().zip(places).find(|(hit, _)| is_right(hit)).map_or(0.0, |(_, place)| 1.0 / place)
}

fn mean(values: &[f64]) -> f64 {
    let count: f64 = values.iter().map(|_| 1.0).sum();
    values.iter().sum::<f64>() / count
}
