//! What every question for many listings has: an order, a limit and a cursor; and why a question is refused.

use serde::Serialize;
use service::problem::{Kind, Refusal};

use crate::cursor::CursorError;

/// Items on a result page unless the question says otherwise.
pub const LIMIT_DEFAULT: usize = 20;
pub const LIMIT_MAX: usize = 100;

/// The order of listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Sort {
    Relevance,
    Newest,
    PriceUp,
    PriceDown,
    Title,
    Distance,
}

impl Sort {
    /// The orders of a list; the first is the default.
    pub const OF_LISTS: &[Self] = &[Self::Newest, Self::PriceUp, Self::PriceDown, Self::Title];
    /// The orders of a search; the first is the default.
    pub const OF_SEARCHES: &[Self] = &[Self::Relevance, Self::PriceUp, Self::PriceDown, Self::Newest, Self::Distance];

    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relevance => "relevance",
            Self::Newest => "-created_at",
            Self::PriceUp => "price",
            Self::PriceDown => "-price",
            Self::Title => "title",
            Self::Distance => "distance",
        }
    }

    /// Finds one of the `possible` orders by its name.
    pub fn from_name(name: &str, possible: &'static [Self]) -> Result<Self, QuestionError> {
        possible.iter().copied().find(|sort| sort.name() == name).ok_or(QuestionError::Sort(possible))
    }

    /// Whether it compares prices, which is possible within one currency only.
    pub fn compares_prices(self) -> bool {
        match self {
            Self::PriceUp | Self::PriceDown => true,
            Self::Relevance | Self::Newest | Self::Title | Self::Distance => false,
        }
    }
}

/// Which result page is wanted, in which order. `None` stands for the default.
#[derive(Debug, Default)]
pub struct Paging {
    pub sort: Option<Sort>,
    pub limit: Option<usize>,
    /// The text of a cursor, as the result page before gave it.
    pub cursor: Option<String>,
}

impl Paging {
    /// The order, if it is one of the `possible`.
    pub fn checked_sort(&self, possible: &'static [Sort]) -> Result<Sort, QuestionError> {
        let sort = self.sort.or(possible.first().copied());
        sort.filter(|sort| possible.contains(sort)).ok_or(QuestionError::Sort(possible))
    }

    pub fn checked_limit(&self) -> Result<usize, QuestionError> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(QuestionError::Limit) }
    }
}

/// Why a question is refused. Texts name its parts as the API does.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("The parameter sort must be one of {}", .0.iter().map(|sort| sort.name()).collect::<Vec<_>>().join(", "))]
    Sort(&'static [Sort]),
    #[error("The parameter sort can be distance only together with near")]
    DistanceWithoutPoint,
    #[error("The parameter limit must be from 1 to {LIMIT_MAX}")]
    Limit,
    #[error("The parameter {name} may have at most {most} values")]
    TooManyValues { name: &'static str, most: usize },
    #[error("The parameter attr. must name an attribute, as in attr.color=black")]
    NamelessAttribute,
    #[error("At most {0} attributes may be filtered by")]
    TooManyAttributes(usize),
    #[error("The parameter facets must be a list of brand, category, price, condition, attr.<name>")]
    UnknownFacet,
    #[error("At most {0} facets may be requested")]
    TooManyFacets(usize),
    #[error("The parameter q may have at most {0} characters")]
    WordsTooLong(usize),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("The question could not be serialized for a cursor")]
    Unserializable(#[from] serde_json::Error),
}

impl Refusal for QuestionError {
    fn kind(&self) -> Kind {
        match self {
            Self::Sort(_)
            | Self::DistanceWithoutPoint
            | Self::Limit
            | Self::TooManyValues { .. }
            | Self::NamelessAttribute
            | Self::TooManyAttributes(_)
            | Self::UnknownFacet
            | Self::TooManyFacets(_)
            | Self::WordsTooLong(_) => Kind::Malformed,
            Self::Cursor(error) => error.kind(),
            Self::Unserializable(_) => Kind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_sorted_by_what_it_can_be() {
        assert_eq!(Paging::default().checked_sort(Sort::OF_LISTS).unwrap(), Sort::Newest);
        assert_eq!(Sort::from_name("distance", Sort::OF_SEARCHES).unwrap(), Sort::Distance);
        for bad in ["distance", "-title", "", "price desc", "created_at"] {
            assert!(Sort::from_name(bad, Sort::OF_LISTS).is_err(), "{bad}");
        }
        let by_distance = Paging { sort: Some(Sort::Distance), ..Paging::default() };
        assert!(
            by_distance.checked_sort(Sort::OF_LISTS).is_err(),
            "a transport may also send an order that is typed, but not possible"
        );
    }

    #[test]
    fn a_page_has_a_size() {
        let limit = |limit| Paging { limit: Some(limit), ..Paging::default() }.checked_limit();
        assert_eq!((limit(1).unwrap(), limit(LIMIT_MAX).unwrap()), (1, LIMIT_MAX));
        assert!(limit(0).is_err() && limit(LIMIT_MAX + 1).is_err());
    }
}
