//! Finds listings: by words, filters, places and prices.
//!
//! First strictly: every word must match. Only if that finds next to nothing, loosely: any word may, or one that is spelled
//! nearly so. So totals and counts stay meaningful, and misspellings, which cost the most, are paid for by those who make
//! them.

pub mod arrival;
mod catalog;
mod clause;
pub mod facets;
pub mod found;
mod index;
mod narrowing;
mod order;
mod point_in_time;
mod query;
pub mod refreshes;
pub mod shared;
pub mod words;

use serde::{Deserialize, Serialize};
use service::http::Parameters;
use service::problem::{Chain, Kind, Problem, Refusal};
use tracing::error;
use utoipa::IntoParams;

pub use found::{Found, SearchPage};

use self::facets::Facet;
use self::point_in_time::Held;
use self::words::Words;
use crate::app::App;
use crate::catalog::CatalogueError;
use crate::consistency::{Consistency, Freshness, NotYet};
use crate::cursor::{self, Backend, Cursor, CursorError, Stage};
use crate::dependency::Unanswered;
use crate::filters::{Filters, Sort};
use crate::visibility::IN_SEARCH;

/// Fewer hits than this, and misspellings and single words are looked for as well.
const ENOUGH: u64 = 3;
/// Items on a page, unless the reader says otherwise.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// What only searches are asked, besides filters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParameters {
    /// Words to look for. Without any, everything is found, newest first.
    #[param(example = "noise cancelling headphones", max_length = 1000)]
    q: Option<String>,
    /// `relevance` (default), `price`, `-price`, `-created_at` or `distance`, which goes with `near`.
    sort: Option<String>,
    /// Counts by `brand`, `category`, `price`, `condition` or `attr.<name>`: a list.
    #[serde(default)]
    #[param(example = "brand,price,attr.color")]
    facets: Vec<String>,
    /// `1` to see where the words are.
    #[param(inline)]
    highlight: Option<Switch>,
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// Continues where a page ended.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
enum Switch {
    #[serde(rename = "1", alias = "true")]
    On,
    #[serde(rename = "0", alias = "false")]
    Off,
}

/// A search, checked.
#[derive(Debug)]
pub struct Search {
    pub question: Question,
    pub facets: Vec<Facet>,
    pub highlight: bool,
    pub limit: usize,
    pub after: Option<Cursor>,
    /// Names the question in cursors.
    pub name: String,
}

/// What a cursor must agree with.
#[derive(Debug, Serialize)]
pub struct Question {
    pub words: Option<Words>,
    pub filters: Filters,
    pub sort: Sort,
}

impl Search {
    /// Reads and checks everything that a search can be asked with; whatever else there is, is refused.
    pub fn read(mut parameters: Parameters) -> Result<Self, Problem> {
        let mut filters = Filters::take_for_search(&mut parameters)?;
        let SearchParameters { q, sort, facets, highlight, limit, cursor } = parameters.read()?;
        let words = Words::read(q.as_deref().unwrap_or_default())?;
        let facets = Facet::read_all(&facets)?;
        let mut sort = Sort::read(sort.as_deref(), Sort::OF_SEARCHES)?;
        if sort == Sort::Distance && filters.places.near.is_none() {
            return Err(Problem::malformed("The parameter sort can be distance only together with near"));
        }
        // Without words everything is as relevant.
        if sort == Sort::Relevance && words.is_none() {
            sort = Sort::Newest;
        }
        if sort.compares_prices() || facets.contains(&Facet::Price) {
            filters.compare_prices();
        }
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::malformed(format!("The parameter limit must be from 1 to {LIMIT_MAX}")));
        }
        let question = Question { words, filters, sort };
        let name = cursor::question(&question).map_err(|error| Problem::logged(&error.into()))?;
        let after = cursor.map(|text| Cursor::decode(&text, &name)).transpose()?;
        Ok(Self { question, facets, highlight: matches!(highlight, Some(Switch::On)), limit, after, name })
    }

    fn stage(&self) -> Stage {
        self.after.as_ref().map_or(Stage::Strict, |cursor| cursor.stage)
    }

    /// Whether looking more widely may be worth it.
    fn may_widen(&self, found: &Found) -> bool {
        self.question.words.is_some()
            && self.question.sort == Sort::Relevance
            && self.after.is_none()
            && found.total.value < ENOUGH
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    NotYet(#[from] NotYet),
    #[error("OpenSearch gave an answer that cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

impl From<CatalogueError> for SearchError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Cursor(error) => Self::Cursor(error),
            CatalogueError::Unanswered(error) => Self::Unanswered(error),
        }
    }
}

impl Refusal for SearchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cursor(error) => error.kind(),
            Self::Unanswered(error) => error.kind(),
            Self::NotYet(error) => error.kind(),
            Self::Unreadable(_) => Kind::Unavailable,
        }
    }
}

/// Answers from OpenSearch; while that is away, from Postgres.
pub async fn search(app: &App, search: &Search, consistency: &Consistency) -> Result<(Found, Freshness), SearchError> {
    let failed = match from_index(app, search, consistency).await {
        Err(error @ (SearchError::Unanswered(_) | SearchError::Unreadable(_))) => error,
        answered => return answered,
    };
    if matches!(failed, SearchError::Unanswered(Unanswered::Refused { .. }) | SearchError::Unreadable(_)) {
        error!(error = %Chain(&failed), "A search is answered from Postgres: {failed}");
    }
    let freshness = crate::catalog::wait_for::<SearchError>(app, consistency).await?;
    Ok((catalog::find(app, search, IN_SEARCH).await?, freshness))
}

async fn from_index(app: &App, search: &Search, consistency: &Consistency) -> Result<(Found, Freshness), SearchError> {
    let freshness = arrival::wait_for(app, consistency).await?;
    if let Some(cursor) = &search.after
        && let Err(error) = cursor.continues(Backend::Search)
    {
        // Only if OpenSearch is there has the store changed since the page before.
        let ping = app.search.client.ping();
        app.search.ask(async { ping.send().await?.error_for_status_code() }).await?;
        return Err(error.into());
    }
    // The point in time of a cursor may be older than what the caller has seen since.
    let held = if consistency.entries().is_empty() { Held::Kept } else { Held::LetGo };
    let found = index::find(app, search, IN_SEARCH, search.stage(), held).await?;
    if search.may_widen(&found) {
        return Ok((index::find(app, search, IN_SEARCH, Stage::Loose, held).await?, freshness));
    }
    Ok((found, freshness))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Search, Problem> {
        Search::read(Parameters::parse(query)?)
    }

    #[test]
    fn nothing_asked_is_everything_newest_first() {
        let search = read("").unwrap();
        assert_eq!((search.question.sort, search.limit, search.highlight), (Sort::Newest, LIMIT, false));
        assert_eq!(read("q=x").unwrap().question.sort, Sort::Relevance);
        assert!(read("q=x&highlight=1").unwrap().highlight);
    }

    #[test]
    fn prices_are_compared_in_one_currency_whoever_compares_them() {
        for query in ["sort=price", "sort=-price", "facets=price", "price_min=1"] {
            assert_eq!(read(query).unwrap().question.filters.currencies.len(), 1, "{query}");
        }
        assert_eq!(read("facets=brand").unwrap().question.filters.currencies, []);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=x",
            "limit=1&limit=2",
            "sort=title",
            "sort=",
            "sort=distance",
            "sort=_score",
            "facets=title",
            "highlight=yes",
            "q=a&q=b",
            "q=%00",
            "q=%ff",
            "cursor=x",
            "cursor=",
            "offset=1",
            "q=x&Q=y",
            "title=x",
            "query={}",
            "radius=1km",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
