//! Queries `projection.listings` for many listings at once: lists, and searches while OpenSearch is unavailable.
//!
//! Statements consist of constant text only: every value of a question is bound as a parameter, and so is the generation.

mod conditions;
mod order;

use events::{Aggregate as _, Listing};
use service::problem::{Kind, Refusal};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use self::order::ResumePoint;
use crate::app::App;
use crate::consistency::{AfterPause, Consistency, Freshness, NotVisibleYet};
use crate::cursor::CursorError;
use crate::filters::Filters;
use crate::question::Sort;
use crate::store_guard::StoreError;
use crate::visibility::Scope;

/// Hits are counted up to this number: counting all of a million would take longer than finding a page of them.
const COUNT_MAX: i64 = 10_000;

/// A query for one result page of the catalog.
#[derive(Debug, Clone, Copy)]
pub struct CatalogQuery<'a> {
    pub generation: i32,
    pub filters: &'a Filters,
    pub scope: Scope,
    /// All of these words must match.
    pub words: Option<&'a str>,
    pub sort: Sort,
    /// The sort keys of the item after which the page starts.
    pub after: Option<&'a [String]>,
    pub limit: usize,
}

/// One result page of the catalog.
#[derive(Debug)]
pub struct CatalogResult {
    pub rows: Vec<CatalogRow>,
    /// The sort keys of the last item, if there are more after it.
    pub next: Option<Vec<String>>,
}

/// A listing, and its rank or distance.
#[derive(Debug)]
pub struct CatalogRow {
    pub listing: Listing,
    pub score: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    NotVisibleYet(#[from] NotVisibleYet),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cursor(error) => error.kind(),
            Self::NotVisibleYet(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// Finds one result page. `operation` names the statement in metrics.
pub async fn find(app: &App, operation: &'static str, query: &CatalogQuery<'_>) -> Result<CatalogResult, CatalogError> {
    let after = query.after.map(|keys| ResumePoint::parse(query.sort, keys)).transpose()?;
    let mut statement =
        QueryBuilder::<Postgres>::new("select listing, score from (select id, listing, title, price, created_at, ");
    order::push_score(&mut statement, query);
    statement.push(" as score from projection.listings where ");
    conditions::push(&mut statement, query);
    statement.push(") as matching");
    if let Some(after) = after {
        after.push(&mut statement, query.sort);
    }
    statement.push(" order by ").push(order::clause(query.sort)).push(" limit ");
    // One row more than the page shows whether there is another page.
    statement.push_bind(i64::try_from(query.limit + 1).unwrap_or(i64::MAX));

    let database = &app.database;
    let rows = database.call(operation, async {
        let rows = statement.build().fetch_all(&database.pool).await?;
        rows.iter()
            .map(|row| {
                let Json(listing) = row.try_get(0)?;
                Ok(CatalogRow { listing, score: row.try_get(1)? })
            })
            .collect::<sqlx::Result<Vec<_>>>()
    });
    let mut rows = rows.await?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next = if more { rows.last().map(|row| order::keys(query.sort, row)) } else { None };
    Ok(CatalogResult { rows, next })
}

/// Counts all matching listings up to [`COUNT_MAX`]; and says whether the count is exact.
pub async fn count(app: &App, operation: &'static str, query: &CatalogQuery<'_>) -> Result<(u64, bool), StoreError> {
    let mut statement = QueryBuilder::<Postgres>::new("select count(*) from (select from projection.listings where ");
    conditions::push(&mut statement, query);
    statement.push(" limit ").push_bind(COUNT_MAX + 1).push(") as counted");
    let database = &app.database;
    let counted = statement.build_query_scalar::<i64>().fetch_one(&database.pool);
    let counted = database.call(operation, counted).await?;
    Ok((counted.min(COUNT_MAX).cast_unsigned(), counted <= COUNT_MAX))
}

/// Waits until `projection.listings` has the required writes. Only writes of listings count: no other aggregate changes the table.
pub async fn wait_for_writes(app: &App, generation: i32, consistency: &Consistency) -> Result<Freshness, CatalogError> {
    let required = consistency.entries().iter().filter(|(key, _)| key.kind == Listing::KIND);
    let (ids, versions): (Vec<Uuid>, Vec<i64>) = required.map(|(key, version)| (key.id, version.cast_signed())).unzip();
    if ids.is_empty() {
        return Ok(Freshness::Fresh);
    }
    let mut wait = consistency.wait();
    loop {
        let statement = sqlx::query_scalar!(
            r#"select not exists (
                 select from unnest($2::uuid[], $3::bigint[]) as required (id, version)
                  where not exists (select from projection.listings as stored
                                     where stored.generation = $1 and stored.id = required.id and stored.version >= required.version)
               ) as "visible!""#,
            generation,
            &ids,
            &versions
        );
        if app.database.call("consistency", statement.fetch_one(&app.database.pool)).await? {
            return Ok(Freshness::Fresh);
        }
        if let AfterPause::Answer(freshness) = wait.pause().await? {
            return Ok(freshness);
        }
    }
}
