//! Answers a search from Postgres while OpenSearch is unavailable: all words must match, with a simpler ranking, without facets and
//! highlights.

use serde_json::value::RawValue;

use super::{FacetCounts, FoundItem, Relation, SearchError, SearchQuestion, SearchResult, Total, words::Words};
use crate::app::App;
use crate::catalog::{self, CatalogQuery, CatalogRow};
use crate::consistency::Freshness;
use crate::cursor::{Backend, Cursor, Stage};
use crate::question::Sort;
use crate::visibility::Scope;

pub async fn find(
    app: &App,
    generation: i32,
    question: &SearchQuestion,
    scope: Scope,
    freshness: Freshness,
) -> Result<SearchResult, SearchError> {
    if let Some(cursor) = &question.after {
        cursor.continues(Backend::Catalog)?;
    }
    let criteria = &question.criteria;
    let query = CatalogQuery {
        generation,
        filters: &criteria.filters,
        scope,
        words: criteria.words.as_ref().map(Words::as_str),
        sort: criteria.sort,
        after: question.after.as_ref().map(|cursor| cursor.keys.as_slice()),
        limit: question.limit,
    };
    let (found, (value, is_exact)) =
        tokio::try_join!(catalog::find(app, "search", &query), async { Ok(catalog::count(app, "search_count", &query).await?) })?;
    let next = found.next.map(|keys| Cursor {
        backend: Backend::Catalog,
        stage: Stage::Strict,
        keys,
        fingerprint: question.fingerprint.clone(),
        point_in_time: None,
    });
    let items = found.rows.iter().map(|row| item(row, criteria.sort)).collect::<Result<_, _>>()?;
    let omitted = [("facets", !question.facets.is_empty()), ("highlight", question.highlight)];
    Ok(SearchResult {
        items,
        total: Total { value, relation: if is_exact { Relation::Eq } else { Relation::Gte } },
        facets: FacetCounts::default(),
        next,
        degraded: true,
        omitted: omitted.into_iter().filter(|(_, requested)| *requested).map(|(name, _)| name).collect(),
        freshness,
    })
}

fn item(row: &CatalogRow, sort: Sort) -> Result<FoundItem, serde_json::Error> {
    let score = row.score.filter(|_| sort == Sort::Relevance);
    Ok(FoundItem {
        listing: serde_json::to_string(&row.listing)?.into_boxed_str(),
        score: score.map(|score| RawValue::from_string(score.to_string())).transpose()?,
        highlight: None,
    })
}
