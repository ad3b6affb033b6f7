//! Asks OpenSearch, and reads its answer.

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use opensearch::SearchParts;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use views::listing_search::{field, listing_json};

use super::clause::{filtered, object};
use super::found::{Found, Highlight, Item, Relation, Total};
use super::narrowing::Narrowing;
use super::point_in_time::Held;
use super::{Search, SearchError, facets, order, point_in_time, query};
use crate::app::App;
use crate::cursor::{Backend, Cursor, Stage};
use crate::dependency::Unanswered;
use crate::opensearch::OPENSEARCH;
use crate::visibility::Scope;

/// What of OpenSearch's answer is read. Borrowed: the listings in it are not parsed.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default)]
    aggregations: Value,
    pit_id: Option<String>,
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
pub async fn find(app: &App, search: &Search, scope: Scope, stage: Stage, held: Held) -> Result<Found, SearchError> {
    let body = body(search, scope, stage)?;
    let Some(cursor) = &search.after else {
        return read(search, stage, None, &ask(app, &body).await?);
    };
    let point_in_time = match (&cursor.point_in_time, held) {
        (Some(known), Held::Kept) => Some(known.clone()),
        (Some(known), Held::LetGo) => tokio::join!(point_in_time::open(app), point_in_time::close(app, known)).0?,
        (None, Held::Kept | Held::LetGo) => point_in_time::open(app).await?,
    };
    if let Some(id) = point_in_time
        && let Some(answer) = point_in_time::ask(app, &id, body.clone()).await?
    {
        let found = read(search, stage, Some(&id), &answer)?;
        if found.next.is_none() {
            point_in_time::close(app, &id).await;
        }
        return Ok(found);
    }
    read(search, stage, None, &ask(app, &body).await?)
}

async fn ask(app: &App, body: &Value) -> Result<Bytes, Unanswered> {
    let index = [app.search.alias.as_str()];
    let question = async {
        let request = app.search.client.search(SearchParts::Index(&index)).allow_partial_search_results(false).body(body);
        let response = request.send().await?;
        let status = response.status_code();
        if status == StatusCode::BAD_REQUEST {
            return Ok((status, response.bytes().await?));
        }
        // Too busy, broken, or without its index: another search would fare no better.
        Ok((status, response.error_for_status_code()?.bytes().await?))
    };
    let (status, answer) = app.search.ask(question).await?;
    if status == StatusCode::BAD_REQUEST {
        let source = anyhow::anyhow!("{}", String::from_utf8_lossy(&answer));
        return Err(Unanswered::Refused { name: OPENSEARCH, source });
    }
    Ok(answer)
}

fn body(search: &Search, scope: Scope, stage: Stage) -> Result<Value, SearchError> {
    let question = &search.question;
    let narrowing = Narrowing::of(&question.filters, scope, &search.facets);
    let post_filter = narrowing.post_filter();
    let counts = (!search.facets.is_empty()).then(|| facets::aggregations(&search.facets, &narrowing.after_counting));
    let mut matching = filtered(narrowing.before_counting);
    if let Some(words) = &question.words {
        matching["bool"]["must"] = query::matching(words, stage);
    }
    let mut body = object([
        // One more than is shown tells whether there is another page.
        ("size", json!(search.limit + 1)),
        ("query", matching),
        ("sort", order::clause(question.sort, &question.filters.places)),
    ]);
    if let Some(filter) = post_filter {
        body["post_filter"] = filter;
    }
    if let Some(counts) = counts {
        body["aggs"] = counts;
    }
    if search.highlight && question.words.is_some() {
        body["highlight"] = query::highlight();
    }
    if let Some(cursor) = &search.after {
        body["search_after"] = order::search_after(&cursor.keys)?;
    }
    Ok(body)
}

fn read(search: &Search, stage: Stage, point_in_time: Option<&str>, answer: &[u8]) -> Result<Found, SearchError> {
    let Answer { hits: Hits { total, mut hits }, aggregations, pit_id } = serde_json::from_slice(answer)?;
    let more = hits.len() > search.limit;
    hits.truncate(search.limit);
    let next = hits.last().filter(|_| more).map(|last| Cursor {
        backend: Backend::Search,
        stage,
        keys: order::keys(&last.sort),
        question: search.name.clone(),
        // OpenSearch may name it anew in each answer.
        point_in_time: pit_id.as_deref().or(point_in_time).map(str::to_owned),
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
