//! Asks OpenSearch, and reads its answer.

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use opensearch::SearchParts;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use views::listing_search::{field, listing_json};

use super::found::{Found, Highlight, Item, Relation, Total};
use super::narrowing::Narrowing;
use super::{Search, SearchError, facets, order, query};
use crate::app::App;
use crate::cursor::{Backend, Cursor, Stage};
use crate::visibility::Scope;

/// What of OpenSearch's answer is read. Borrowed: the listings in it are not parsed.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default)]
    aggregations: Value,
}

#[derive(Deserialize)]
struct Hits<'a> {
    total: RawTotal,
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct RawTotal {
    value: u64,
    relation: Relation,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow, rename = "_source")]
    source: &'a RawValue,
    #[serde(borrow, rename = "_score")]
    score: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sort: Vec<&'a RawValue>,
    highlight: Option<HashMap<String, Vec<String>>>,
}

/// One page at one stage.
pub async fn find(app: &App, search: &Search, scope: Scope, stage: Stage) -> Result<Found, SearchError> {
    let body = body(search, scope, stage)?;
    let (status, answer) = ask(app, &body).await?;
    if !status.is_success() {
        return Err(SearchError::Refused(String::from_utf8_lossy(&answer).into_owned()));
    }
    read(search, stage, &answer)
}

async fn ask(app: &App, body: &Value) -> Result<(StatusCode, Bytes), SearchError> {
    let index = [app.search.alias.as_str()];
    let question = async {
        let request = app.search.client.search(SearchParts::Index(&index)).allow_partial_search_results(false).body(body);
        let response = request.send().await?;
        let status = response.status_code();
        // Too busy, or broken: another search would fare no better.
        let response = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            response.error_for_status_code()?
        } else {
            response
        };
        Ok((status, response.bytes().await?))
    };
    Ok(app.search.ask(question).await?)
}

fn body(search: &Search, scope: Scope, stage: Stage) -> Result<Value, SearchError> {
    let question = &search.question;
    let narrowing = Narrowing::of(&question.filters, scope, &search.facets);
    let mut matching = json!({"bool": {"filter": narrowing.before_counting}});
    if let Some(words) = &question.words {
        matching["bool"]["must"] = query::matching(words, stage);
    }
    let mut body = json!({
        // One more than is shown tells whether there is another page.
        "size": search.limit + 1,
        "query": matching,
        "sort": order::clause(question.sort, &question.filters.places),
    });
    if let Some(filter) = narrowing.post_filter() {
        body["post_filter"] = filter;
    }
    if !search.facets.is_empty() {
        body["aggs"] = facets::aggregations(&search.facets, &narrowing.after_counting);
    }
    if search.highlight && question.words.is_some() {
        body["highlight"] = query::highlight();
    }
    if let Some(cursor) = &search.after {
        body["search_after"] = order::search_after(&cursor.keys)?;
    }
    Ok(body)
}

fn read(search: &Search, stage: Stage, answer: &[u8]) -> Result<Found, SearchError> {
    let Answer { hits: Hits { total, mut hits }, aggregations } = serde_json::from_slice(answer)?;
    let more = hits.len() > search.limit;
    hits.truncate(search.limit);
    let next = hits.last().filter(|_| more).map(|last| Cursor {
        backend: Backend::Search,
        stage,
        keys: order::keys(&last.sort),
        question: search.name.clone(),
        point_in_time: None,
    });
    let items = hits.into_iter().map(|hit| item(search, hit)).collect::<Result<_, _>>()?;
    Ok(Found {
        items,
        total: Total { value: total.value, relation: total.relation },
        facets: facets::counted(&search.facets, &aggregations),
        next,
        degraded: false,
        omitted: Vec::new(),
    })
}

fn item(search: &Search, hit: Hit<'_>) -> Result<Item, serde_json::Error> {
    Ok(Item {
        listing: listing_json(hit.source)?.into_owned().into_boxed_str(),
        score: hit.score.filter(|score| score.get() != "null").map(ToOwned::to_owned),
        highlight: search.highlight.then(|| highlight(hit.highlight.unwrap_or_default())),
    })
}

/// A language's field stands in where the words of the listing's own field did not match.
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
