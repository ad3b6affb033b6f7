//! Finds listings: by words, filters, places and prices.
//!
//! A search is strict first: every word must match. Only if that finds almost nothing, a second search is loose: any word may match,
//! also with a misspelling. So totals and facets stay meaningful, and only misspelled searches pay for fuzzy matching, the most
//! expensive part.

mod facets;
mod fallback;
mod filter_clauses;
mod index;
mod order;
mod point_in_time;
mod query;
mod read_your_writes;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::problem::{Chain, Kind, Refusal};
use tracing::error;
use utoipa::ToSchema;

pub use self::facets::{Count, Facet, FacetCounts};

use self::point_in_time::PointInTimeUse;
use self::words::Words;
use crate::app::App;
use crate::catalog::{self, CatalogError};
use crate::consistency::{Consistency, Freshness, NotVisibleYet};
use crate::cursor::{Backend, Cursor, CursorError, Stage, fingerprint};
use crate::filters::Filters;
use crate::question::{Paging, QuestionError, Sort};
use crate::store_guard::StoreError;
use crate::visibility::IN_SEARCH;

/// A strict search with fewer hits is repeated loosely.
const ENOUGH: u64 = 3;

/// What to search for, not checked yet.
#[derive(Debug, Default)]
pub struct SearchRequest {
    pub words: String,
    pub filters: Filters,
    /// The names of facets.
    pub facets: Vec<String>,
    pub highlight: bool,
    pub paging: Paging,
}

/// A checked question for one result page of a search.
#[derive(Debug)]
pub struct SearchQuestion {
    criteria: SearchCriteria,
    facets: Vec<Facet>,
    highlight: bool,
    limit: usize,
    after: Option<Cursor>,
    fingerprint: String,
}

/// What must stay the same from one result page to the next. Its serialized form is part of cursors: see [`fingerprint`].
#[derive(Debug, Serialize)]
struct SearchCriteria {
    words: Option<Words>,
    filters: Filters,
    sort: Sort,
}

/// One result page of a search, from whichever store answered.
#[derive(Debug)]
pub struct SearchResult {
    pub items: Vec<FoundItem>,
    pub total: Total,
    pub facets: FacetCounts,
    /// Continues after the last item; `None` if there are no more.
    pub next: Option<Cursor>,
    /// Postgres answered, because OpenSearch is unavailable.
    pub degraded: bool,
    /// Parts of the question that a degraded answer leaves out.
    pub omitted: Vec<&'static str>,
    pub freshness: Freshness,
}

/// A listing that was found.
#[derive(Debug)]
pub struct FoundItem {
    /// The listing as the API shows it: the text of a JSON object, as it is stored.
    pub listing: Box<str>,
    /// As the store wrote it; `None` unless the order is by relevance.
    pub score: Option<Box<RawValue>>,
    pub highlight: Option<Highlight>,
}

/// The parts of a listing that matched, by field, as HTML: matches are in `<em>`, everything else is escaped.
pub type Highlight = BTreeMap<&'static str, Vec<String>>;

/// How many listings match.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Total {
    pub value: u64,
    pub relation: Relation,
}

/// Whether a total is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    Eq,
    /// There are at least as many.
    Gte,
}

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotVisibleYet(#[from] NotVisibleYet),
    #[error("OpenSearch sent an answer that cannot be parsed")]
    Unparsable(#[from] serde_json::Error),
}

impl From<CatalogError> for SearchError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Cursor(error) => Self::Cursor(error),
            CatalogError::NotVisibleYet(error) => Self::NotVisibleYet(error),
            CatalogError::Store(error) => Self::Store(error),
        }
    }
}

impl Refusal for SearchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cursor(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::NotVisibleYet(error) => error.kind(),
            Self::Unparsable(_) => Kind::Unavailable,
        }
    }
}

impl SearchQuestion {
    pub fn new(request: SearchRequest) -> Result<Self, QuestionError> {
        let mut filters = request.filters.checked()?;
        let words = Words::new(&request.words)?;
        let facets = Facet::list(&request.facets)?;
        let mut sort = request.paging.checked_sort(Sort::OF_SEARCHES)?;
        if sort == Sort::Distance && filters.places.near.is_none() {
            return Err(QuestionError::DistanceWithoutPoint);
        }
        // Without words all listings are equally relevant.
        if sort == Sort::Relevance && words.is_none() {
            sort = Sort::Newest;
        }
        if sort.compares_prices() || facets.contains(&Facet::Price) {
            filters.compare_prices();
        }
        let limit = request.paging.checked_limit()?;
        let criteria = SearchCriteria { words, filters, sort };
        let fingerprint = fingerprint(&criteria)?;
        let after = request.paging.cursor.map(|text| Cursor::decode(&text, &fingerprint)).transpose()?;
        Ok(Self { criteria, facets, highlight: request.highlight, limit, after, fingerprint })
    }

    fn stage(&self) -> Stage {
        self.after.as_ref().map_or(Stage::Strict, |cursor| cursor.stage)
    }

    /// Whether a loose search may find more.
    fn is_worth_loosening(&self, found: &SearchResult) -> bool {
        self.criteria.words.is_some()
            && self.criteria.sort == Sort::Relevance
            && self.after.is_none()
            && found.total.value < ENOUGH
    }
}

/// Answers from OpenSearch, or from Postgres while OpenSearch is unavailable.
pub async fn search(app: &App, question: &SearchQuestion, consistency: &Consistency) -> Result<SearchResult, SearchError> {
    let failed = match search_index(app, question, consistency).await {
        Err(error @ (SearchError::Store(_) | SearchError::Unparsable(_))) => error,
        answered => return answered,
    };
    if matches!(failed, SearchError::Store(StoreError::Rejected { .. }) | SearchError::Unparsable(_)) {
        error!(error = %Chain(&failed), "OpenSearch failed, so Postgres answers the search: {failed}");
    }
    let generation = app.generations.listing_catalog();
    let freshness = catalog::wait_for_writes(app, generation, consistency).await?;
    fallback::find(app, generation, question, IN_SEARCH, freshness).await
}

async fn search_index(app: &App, question: &SearchQuestion, consistency: &Consistency) -> Result<SearchResult, SearchError> {
    let freshness = read_your_writes::wait(app, consistency).await?;
    if let Some(cursor) = &question.after
        && let Err(error) = cursor.continues(Backend::Search)
    {
        // The cursor is from Postgres. It is only obsolete if OpenSearch is available again.
        let ping = app.search.client.ping();
        app.search.call(async { ping.send().await?.error_for_status_code() }).await?;
        return Err(error.into());
    }
    // The point in time of a cursor may be older than the required writes.
    let point_in_time = if consistency.entries().is_empty() { PointInTimeUse::Keep } else { PointInTimeUse::Replace };
    let mut found = index::find(app, question, IN_SEARCH, question.stage(), point_in_time).await?;
    if question.is_worth_loosening(&found) {
        found = index::find(app, question, IN_SEARCH, Stage::Loose, point_in_time).await?;
    }
    Ok(SearchResult { freshness, ..found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::PriceRange;
    use crate::question::LIMIT_DEFAULT;

    fn by(sort: Sort) -> Paging {
        Paging { sort: Some(sort), ..Paging::default() }
    }

    #[test]
    fn nothing_asked_is_everything_newest_first() {
        let question = SearchQuestion::new(SearchRequest::default()).unwrap();
        assert_eq!((question.criteria.sort, question.limit, question.highlight), (Sort::Newest, LIMIT_DEFAULT, false));
        let question = SearchQuestion::new(SearchRequest { words: "x".to_owned(), ..SearchRequest::default() }).unwrap();
        assert_eq!(question.criteria.sort, Sort::Relevance);
    }

    #[test]
    fn prices_are_compared_in_one_currency_whoever_compares_them() {
        let price = Some(PriceRange { min: Some(rust_decimal::Decimal::ONE), max: None });
        for request in [
            SearchRequest { paging: by(Sort::PriceUp), ..SearchRequest::default() },
            SearchRequest { paging: by(Sort::PriceDown), ..SearchRequest::default() },
            SearchRequest { facets: vec!["price".to_owned()], ..SearchRequest::default() },
            SearchRequest { filters: Filters { price, ..Filters::default() }, ..SearchRequest::default() },
        ] {
            let shown = format!("{request:?}");
            assert_eq!(SearchQuestion::new(request).unwrap().criteria.filters.currencies.len(), 1, "{shown}");
        }
        let by_brand = SearchRequest { facets: vec!["brand".to_owned()], ..SearchRequest::default() };
        assert_eq!(SearchQuestion::new(by_brand).unwrap().criteria.filters.currencies, []);
    }

    #[test]
    fn a_search_is_sorted_by_what_it_can_be() {
        for sort in [Sort::Title, Sort::Distance] {
            assert!(SearchQuestion::new(SearchRequest { paging: by(sort), ..SearchRequest::default() }).is_err(), "{sort:?}");
        }
    }

    #[test]
    fn a_cursor_of_another_question_is_refused() {
        let question = SearchQuestion::new(SearchRequest::default()).unwrap();
        let cursor = Cursor {
            backend: Backend::Search,
            stage: Stage::Strict,
            keys: vec!["1".to_owned()],
            fingerprint: question.fingerprint,
            point_in_time: None,
        };
        let paging = || Paging { cursor: Some(cursor.encode().unwrap()), ..Paging::default() };
        assert!(SearchQuestion::new(SearchRequest { paging: paging(), ..SearchRequest::default() }).is_ok());
        let other = SearchRequest { paging: paging(), words: "x".to_owned(), ..SearchRequest::default() };
        assert!(SearchQuestion::new(other).is_err());
    }
}
