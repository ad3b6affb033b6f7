//! Asks `projection.listings` for many listings at once: lists, and searches while OpenSearch is away.
//!
//! Every value of a question is bound; only text of our own is written into a statement.

mod arrival;
mod conditions;
mod order;

use events::Listing;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Row as _};

pub use arrival::wait_for;

use crate::app::App;
use crate::cursor::CursorError;
use crate::dependency::Unanswered;
use crate::filters::{Filters, Sort};
use crate::visibility::Scope;

use self::order::After;

/// Hits are counted no further than this: whoever sees ten thousand reads on or narrows the question.
const COUNTED: i64 = 10_000;

/// What is wanted of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub filters: &'a Filters,
    pub scope: Scope,
    /// All of these words.
    pub words: Option<&'a str>,
    pub sort: Sort,
    /// Behind the item with these keys.
    pub after: Option<&'a [String]>,
    pub limit: usize,
}

/// A page of the catalogue.
#[derive(Debug)]
pub struct CataloguePage {
    pub rows: Vec<CatalogueRow>,
    /// The keys of the last item, if there are more behind it.
    pub next: Option<Vec<String>>,
}

/// A listing, and how well its words match.
#[derive(Debug)]
pub struct CatalogueRow {
    pub listing: Listing,
    pub score: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// One page, in its order. `operation` says what it is for.
pub async fn find(app: &App, operation: &'static str, wanted: &Wanted<'_>) -> Result<CataloguePage, CatalogueError> {
    let after = wanted.after.map(|keys| After::read(wanted.sort, keys)).transpose()?;
    let mut statement =
        QueryBuilder::<Postgres>::new("select listing, score from (select id, listing, title, price, created_at, ");
    order::push_score(&mut statement, wanted);
    statement.push(" as score from projection.listings where ");
    conditions::push(&mut statement, wanted.filters, wanted.scope, wanted.words);
    statement.push(") as held");
    if let Some(after) = after {
        after.push(&mut statement, wanted.sort);
    }
    statement.push(" order by ").push(order::clause(wanted.sort)).push(" limit ");
    // One more than wanted says whether there are more.
    statement.push_bind(i64::try_from(wanted.limit + 1).unwrap_or(i64::MAX));

    let database = &app.database;
    let rows = database.ask(operation, async {
        let rows = statement.build().fetch_all(&database.pool).await?;
        rows.iter()
            .map(|row| {
                let Json(listing) = row.try_get(0)?;
                Ok(CatalogueRow { listing, score: row.try_get(1)? })
            })
            .collect::<sqlx::Result<Vec<_>>>()
    });
    let mut rows = rows.await?;
    let more = rows.len() > wanted.limit;
    rows.truncate(wanted.limit);
    let next = if more { rows.last().map(|row| order::keys(wanted.sort, row)) } else { None };
    Ok(CataloguePage { rows, next })
}

/// How many there are in all, and whether that is exact.
pub async fn count(app: &App, operation: &'static str, wanted: &Wanted<'_>) -> Result<(u64, bool), Unanswered> {
    let mut statement = QueryBuilder::<Postgres>::new("select count(*) from (select from projection.listings where ");
    conditions::push(&mut statement, wanted.filters, wanted.scope, wanted.words);
    statement.push(" limit ").push_bind(COUNTED + 1).push(") as counted");
    let database = &app.database;
    let counted = statement.build_query_scalar::<i64>().fetch_one(&database.pool);
    let counted = database.ask(operation, counted).await?;
    Ok((counted.min(COUNTED).cast_unsigned(), counted <= COUNTED))
}
