//! Searches OpenSearch: builds the request and parses the answer.

use std::collections::HashMap;

use bytes::Bytes;
use opensearch::SearchParts;
use opensearch::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use views::listing_search::{field, listing_json};

use super::filter_clauses::FilterClauses;
use super::point_in_time::PointInTimeUse;
use super::query::{filtered, object};
use super::{
    FoundItem, Highlight, Relation, SearchError, SearchQuestion, SearchResult, Total, facets, order, point_in_time, query,
};
use crate::app::App;
use crate::consistency::Freshness;
use crate::cursor::{Backend, Cursor, Stage};
use crate::opensearch::OPENSEARCH;
use crate::store_guard::StoreError;
use crate::visibility::Scope;

/// The used parts of OpenSearch's answer. Borrowed: the listings in it are not parsed.
#[derive(Deserialize)]
struct IndexResponse<'a> {
    #[serde(borrow)]
    hits: SearchHits<'a>,
    #[serde(default)]
    aggregations: Value,
    pit_id: Option<String>,
}

#[derive(Deserialize)]
struct SearchHits<'a> {
    total: HitTotal,
    #[serde(borrow)]
    hits: Vec<SearchHit<'a>>,
}

#[derive(Deserialize)]
struct HitTotal {
    value: u64,
    relation: Relation,
}

#[derive(Deserialize)]
struct SearchHit<'a> {
    #[serde(borrow, rename = "_source")]
    source: &'a RawValue,
    #[serde(borrow, rename = "_score")]
    score: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sort: Vec<&'a RawValue>,
    highlight: Option<HashMap<String, Vec<String>>>,
}

/// Finds one result page at one stage.
pub async fn find(
    app: &App,
    question: &SearchQuestion,
    scope: Scope,
    stage: Stage,
    point_in_time_use: PointInTimeUse,
) -> Result<SearchResult, SearchError> {
    let body = body(question, scope, stage)?;
    let Some(cursor) = &question.after else {
        return parse(question, stage, None, &search(app, &body).await?);
    };
    let point_in_time = match (&cursor.point_in_time, point_in_time_use) {
        (Some(known), PointInTimeUse::Keep) => Some(known.clone()),
        (Some(known), PointInTimeUse::Replace) => tokio::join!(point_in_time::open(app), point_in_time::close(app, known)).0?,
        (None, PointInTimeUse::Keep | PointInTimeUse::Replace) => point_in_time::open(app).await?,
    };
    if let Some(id) = point_in_time
        && let Some(answer) = point_in_time::search(app, &id, body.clone()).await?
    {
        let found = parse(question, stage, Some(&id), &answer)?;
        if found.next.is_none() {
            point_in_time::close(app, &id).await;
        }
        return Ok(found);
    }
    parse(question, stage, None, &search(app, &body).await?)
}

async fn search(app: &App, body: &Value) -> Result<Bytes, StoreError> {
    let index = [app.search.alias.as_str()];
    let call = async {
        let request = app.search.client.search(SearchParts::Index(&index)).allow_partial_search_results(false).body(body);
        let response = request.send().await?;
        let status = response.status_code();
        if status == StatusCode::BAD_REQUEST {
            return Ok((status, response.bytes().await?));
        }
        // OpenSearch is overloaded, broken, or has no index: any other search would fail too.
        Ok((status, response.error_for_status_code()?.bytes().await?))
    };
    let (status, answer) = app.search.call(call).await?;
    if status == StatusCode::BAD_REQUEST {
        let source = anyhow::anyhow!("{}", String::from_utf8_lossy(&answer));
        return Err(StoreError::Rejected { name: OPENSEARCH, source });
    }
    Ok(answer)
}

fn body(question: &SearchQuestion, scope: Scope, stage: Stage) -> Result<Value, SearchError> {
    let criteria = &question.criteria;
    let clauses = FilterClauses::of(&criteria.filters, scope, &question.facets);
    let post_filter = clauses.post_filter();
    let counts = (!question.facets.is_empty()).then(|| facets::aggregations(&question.facets, &clauses.post));
    let mut matching = filtered(clauses.query);
    if let Some(words) = &criteria.words {
        matching["bool"]["must"] = query::matching(words, stage);
    }
    let mut body = object([
        // One hit more than the page shows whether there is another page.
        ("size", json!(question.limit + 1)),
        ("query", matching),
        ("sort", order::clause(criteria.sort, &criteria.filters.places)),
    ]);
    if let Some(filter) = post_filter {
        body["post_filter"] = filter;
    }
    if let Some(counts) = counts {
        body["aggs"] = counts;
    }
    if question.highlight && criteria.words.is_some() {
        body["highlight"] = query::highlight();
    }
    if let Some(cursor) = &question.after {
        body["search_after"] = order::search_after(&cursor.keys)?;
    }
    Ok(body)
}

fn parse(
    question: &SearchQuestion,
    stage: Stage,
    point_in_time: Option<&str>,
    answer: &[u8],
) -> Result<SearchResult, SearchError> {
    let IndexResponse { hits: SearchHits { total, mut hits }, aggregations, pit_id } = serde_json::from_slice(answer)?;
    let more = hits.len() > question.limit;
    hits.truncate(question.limit);
    let next = hits.last().filter(|_| more).map(|last| Cursor {
        backend: Backend::Search,
        stage,
        keys: order::keys(&last.sort),
        fingerprint: question.fingerprint.clone(),
        // OpenSearch may change the id with each answer.
        point_in_time: pit_id.as_deref().or(point_in_time).map(str::to_owned),
    });
    let items = hits.into_iter().map(|hit| item(question, hit)).collect::<Result<_, _>>()?;
    Ok(SearchResult {
        items,
        total: Total { value: total.value, relation: total.relation },
        facets: facets::counted(&question.facets, &aggregations),
        next,
        degraded: false,
        omitted: Vec::new(),
        freshness: Freshness::Fresh,
    })
}

fn item(question: &SearchQuestion, hit: SearchHit<'_>) -> Result<FoundItem, serde_json::Error> {
    Ok(FoundItem {
        listing: listing_json(hit.source)?.into_owned().into_boxed_str(),
        score: hit.score.filter(|score| score.get() != "null").map(ToOwned::to_owned),
        highlight: question.highlight.then(|| highlight(hit.highlight.unwrap_or_default())),
    })
}

/// Takes the highlights of each field, or of its variant for another language where the field itself did not match.
fn highlight(mut parts: HashMap<String, Vec<String>>) -> Highlight {
    let mut of = |shown, fields: [&str; 3]| fields.iter().find_map(|field| parts.remove(*field)).map(|parts| (shown, parts));
    [
        of("title", [field::TITLE, field::TITLE_SERBIAN, field::TITLE_RUSSIAN]),
        of("description", [field::DESCRIPTION, field::DESCRIPTION_SERBIAN, field::DESCRIPTION_RUSSIAN]),
    ]
    .into_iter()
    .flatten()
    .collect()
}
