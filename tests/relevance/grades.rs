//! Relevance on queries for which people have graded products from 0 to 3.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use acceptance::Marketplace;
use anyhow::Context as _;

use super::{JUDGED, hits, mean, reciprocal_rank};

const FILE: &str = "icecat-ratings-dev.csv";

/// Quality of the first ten hits. A product without a grade counts as 0, which underestimates the quality; `judged` is
/// therefore the share of hits that have a grade.
pub struct Graded {
    pub ndcg: f64,
    pub mrr: f64,
    /// Queries without a single hit.
    pub without_hits: usize,
    judged: f64,
    answerable: usize,
    /// Number of all queries; those without any relevant product are not answerable.
    queries: usize,
}

impl fmt::Display for Graded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ndcg, mrr, without_hits, judged, answerable, queries } = self;
        write!(
            f,
            "{answerable} answerable of {queries} queries: nDCG@10 {ndcg:.4}, MRR@10 {mrr:.4}, judged@10 {judged:.3}, \
             without hits {without_hits}"
        )
    }
}

/// Runs all queries and computes the measures.
pub async fn judge(market: &Marketplace, data: &Path) -> anyhow::Result<Graded> {
    let queries = read(&data.join(FILE))?;
    let (mut ndcg, mut ranks, mut judged, mut without_hits) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (query, grades) in &queries {
        let hits = hits(market, query).await?;
        without_hits += usize::from(hits.is_empty());
        let mut best: Vec<u32> = grades.values().copied().collect();
        best.sort_unstable_by(|one, other| other.cmp(one));
        let ideal = gain(best.into_iter());
        if ideal == 0.0 {
            continue;
        }
        let grade = |hit: &str| grades.get(hit).copied().unwrap_or_default();
        ndcg.push(gain(hits.iter().map(|hit| grade(hit))) / ideal);
        ranks.push(reciprocal_rank(&hits, |hit| grade(hit) > 0));
        judged.extend(hits.iter().map(|hit| f64::from(u8::from(grades.contains_key(hit)))));
    }
    let (answerable, queries) = (ndcg.len(), queries.len());
    Ok(Graded { ndcg: mean(&ndcg), mrr: mean(&ranks), without_hits, judged: mean(&judged), answerable, queries })
}

/// Returns the discounted cumulative gain of the first ten grades.
fn gain(grades: impl Iterator<Item = u32>) -> f64 {
    let places = std::iter::successors(Some(1.0_f64), |place| Some(place + 1.0));
    grades.take(JUDGED).zip(places).map(|(grade, place)| (f64::from(2_u32.pow(grade)) - 1.0) / (place + 1.0).log2()).sum()
}

/// Reads the grades of each query. A line is `query,docid,rating`; a query with commas is in quotes.
fn read(file: &Path) -> anyhow::Result<BTreeMap<String, HashMap<String, u32>>> {
    let mut queries: BTreeMap<String, HashMap<String, u32>> = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines().skip(1) {
        let mut fields = line.rsplitn(3, ',');
        let (rating, product, query) = (fields.next(), fields.next(), fields.next());
        let rating = rating.context("a line without a rating")?.parse()?;
        let query =
            query.with_context(|| format!("the line is not query,docid,rating: {line}"))?.trim_matches('"').replace("\"\"", "\"");
        queries.entry(query).or_default().insert(product.unwrap_or_default().to_owned(), rating);
    }
    Ok(queries)
}
