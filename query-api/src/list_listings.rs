//! Lists listings: everyone's that are for sale, or a seller's own, drafts too. From Postgres alone.

use events::Listing;
use serde::{Deserialize, Serialize};
use service::http::Parameters;
use service::problem::{Kind, Problem, Refusal};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::catalog::{self, CatalogueError, Wanted};
use crate::consistency::{Consistency, Freshness, NotYet};
use crate::cursor::{self, Backend, Cursor, CursorError, Stage};
use crate::dependency::Unanswered;
use crate::filters::{Filters, Sort};
use crate::visibility::{self, Audience, Scope, Viewer};

/// Items on a page, unless the reader says otherwise.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// What a list is asked, besides filters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// `-created_at` (default), `price`, `-price` or `title`. By price: of listings in `currency`, by default RSD.
    sort: Option<String>,
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// Continues where a page ended.
    cursor: Option<String>,
}

/// A question for a list, checked.
#[derive(Debug)]
pub struct List {
    question: Question,
    scope: Scope,
    limit: usize,
    after: Option<Cursor>,
    /// Names the question in cursors.
    name: String,
}

/// What a cursor must agree with.
#[derive(Debug, Serialize)]
struct Question {
    filters: Filters,
    sort: Sort,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListingPage {
    pub items: Vec<Listing>,
    /// Continues behind the last item; null when there is no more.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A page of a list, for one viewer.
#[derive(Debug)]
pub struct ShownList {
    pub page: ListingPage,
    pub audience: Audience,
    pub freshness: Freshness,
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    NotYet(#[from] NotYet),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("a cursor could not be written")]
    Unwritable(#[from] serde_json::Error),
}

impl From<CatalogueError> for ListError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Cursor(error) => Self::Cursor(error),
            CatalogueError::Unanswered(error) => Self::Unanswered(error),
        }
    }
}

impl Refusal for ListError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cursor(error) => error.kind(),
            Self::NotYet(error) => error.kind(),
            Self::Unanswered(error) => error.kind(),
            Self::Unwritable(_) => Kind::Internal,
        }
    }
}

impl List {
    /// Reads and checks everything that a list can be asked with; whatever else there is, is refused.
    pub fn read(mut parameters: Parameters, viewer: Viewer) -> Result<Self, Problem> {
        let mut filters = Filters::take_for_list(&mut parameters)?;
        let ListParameters { sort, limit, cursor } = parameters.read()?;
        let sort = Sort::read(sort.as_deref(), Sort::OF_LISTS)?;
        if sort.compares_prices() {
            filters.compare_prices();
        }
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::malformed(format!("The parameter limit must be from 1 to {LIMIT_MAX}")));
        }
        let scope = visibility::in_list(viewer, &filters.sellers);
        let question = Question { filters, sort };
        let name = cursor::question(&question).map_err(|error| Problem::logged(&error.into()))?;
        let after = cursor.map(|text| Cursor::decode(&text, &name)).transpose()?;
        Ok(Self { question, scope, limit, after, name })
    }
}

pub async fn list_listings(app: &App, list: &List, consistency: &Consistency) -> Result<ShownList, ListError> {
    if let Some(cursor) = &list.after {
        cursor.continues(Backend::List)?;
    }
    let freshness = catalog::wait_for::<ListError>(app, consistency).await?;
    let Question { filters, sort } = &list.question;
    let after = list.after.as_ref().map(|cursor| cursor.keys.as_slice());
    let wanted = Wanted { filters, scope: list.scope, words: None, sort: *sort, after, limit: list.limit };
    let found = catalog::find(app, "list_listings", &wanted).await?;
    let next = found.next.map(|keys| Cursor {
        backend: Backend::List,
        stage: Stage::Strict,
        keys,
        question: list.name.clone(),
        point_in_time: None,
    });
    let next_cursor = next.map(|cursor| cursor.encode()).transpose()?;
    let items = found.rows.into_iter().map(|row| row.listing).collect();
    Ok(ShownList { page: ListingPage { items, next_cursor }, audience: list.scope.audience(), freshness })
}
