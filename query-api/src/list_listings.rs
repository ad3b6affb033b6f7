//! Lists listings: all that are for sale, or a seller's own, including drafts. From Postgres alone.

use events::Listing;
use serde::Serialize;

use crate::app::App;
use crate::catalog::{self, CatalogError, CatalogQuery};
use crate::consistency::{Consistency, Freshness};
use crate::cursor::{Backend, Cursor, Stage, fingerprint};
use crate::filters::Filters;
use crate::question::{Paging, QuestionError, Sort};
use crate::visibility::{self, Audience, Scope, Viewer};

/// A checked question for one result page of a list.
#[derive(Debug)]
pub struct ListQuestion {
    criteria: ListCriteria,
    scope: Scope,
    limit: usize,
    after: Option<Cursor>,
    fingerprint: String,
}

/// What must stay the same from one result page to the next. Its serialized form is part of cursors: see [`fingerprint`].
#[derive(Debug, Serialize)]
struct ListCriteria {
    filters: Filters,
    sort: Sort,
}

/// One result page of a list, for one viewer.
#[derive(Debug)]
pub struct ListResult {
    pub listings: Vec<Listing>,
    /// Continues after the last listing; `None` if there are no more.
    pub next: Option<Cursor>,
    pub audience: Audience,
    pub freshness: Freshness,
}

impl ListQuestion {
    pub fn new(viewer: Viewer, filters: Filters, paging: &Paging) -> Result<Self, QuestionError> {
        let mut filters = filters.checked()?;
        let sort = paging.checked_sort(Sort::OF_LISTS)?;
        if sort.compares_prices() {
            filters.compare_prices();
        }
        let limit = paging.checked_limit()?;
        let scope = visibility::in_list(viewer, &filters.sellers);
        let criteria = ListCriteria { filters, sort };
        let fingerprint = fingerprint(&criteria)?;
        let after = paging.cursor.as_ref().map(|text| Cursor::decode(text, &fingerprint)).transpose()?;
        Ok(Self { criteria, scope, limit, after, fingerprint })
    }
}

pub async fn list_listings(app: &App, question: &ListQuestion, consistency: &Consistency) -> Result<ListResult, CatalogError> {
    if let Some(cursor) = &question.after {
        cursor.continues(Backend::List)?;
    }
    let generation = app.generations.listing_catalog();
    let freshness = catalog::wait_for_writes(app, generation, consistency).await?;
    let query = CatalogQuery {
        generation,
        filters: &question.criteria.filters,
        scope: question.scope,
        words: None,
        sort: question.criteria.sort,
        after: question.after.as_ref().map(|cursor| cursor.keys.as_slice()),
        limit: question.limit,
    };
    let found = catalog::find(app, "list_listings", &query).await?;
    let next = found.next.map(|keys| Cursor {
        backend: Backend::List,
        stage: Stage::Strict,
        keys,
        fingerprint: question.fingerprint.clone(),
        point_in_time: None,
    });
    let listings = found.rows.into_iter().map(|row| row.listing).collect();
    Ok(ListResult { listings, next, audience: question.scope.audience(), freshness })
}
