//! The same search, answered by Postgres while OpenSearch is away: all words, plain ranking, no facets and no highlights.

use serde_json::value::RawValue;

use super::found::{Found, Item, Relation, Total};
use super::{Search, SearchError, facets};
use crate::app::App;
use crate::catalog::{self, CatalogueRow, Wanted};
use crate::cursor::{Backend, Cursor, Stage};
use crate::filters::Sort;
use crate::visibility::Scope;

pub async fn find(app: &App, search: &Search, scope: Scope) -> Result<Found, SearchError> {
    if let Some(cursor) = &search.after {
        cursor.continues(Backend::Catalog)?;
    }
    let question = &search.question;
    let wanted = Wanted {
        filters: &question.filters,
        scope,
        words: question.words.as_ref().map(super::words::Words::as_str),
        sort: question.sort,
        after: search.after.as_ref().map(|cursor| cursor.keys.as_slice()),
        limit: search.limit,
    };
    let (page, (value, is_exact)) = tokio::try_join!(catalog::find(app, "search", &wanted), async {
        Ok(catalog::count(app, "search_count", &wanted).await?)
    })?;
    let next = page.next.map(|keys| Cursor {
        backend: Backend::Catalog,
        stage: Stage::Strict,
        keys,
        question: search.name.clone(),
        point_in_time: None,
    });
    let items = page.rows.iter().map(|row| item(row, question.sort)).collect::<Result<_, _>>()?;
    let omitted = [("facets", !search.facets.is_empty()), ("highlight", search.highlight)];
    Ok(Found {
        items,
        total: Total { value, relation: if is_exact { Relation::Eq } else { Relation::Gte } },
        facets: facets::Facets::default(),
        next,
        degraded: true,
        omitted: omitted.into_iter().filter(|(_, asked_for)| *asked_for).map(|(name, _)| name).collect(),
    })
}

fn item(row: &CatalogueRow, sort: Sort) -> Result<Item, serde_json::Error> {
    let score = row.score.filter(|_| sort == Sort::Relevance);
    Ok(Item {
        listing: serde_json::to_string(&row.listing)?.into_boxed_str(),
        score: score.map(|score| RawValue::from_string(score.to_string())).transpose()?,
        highlight: None,
    })
}
