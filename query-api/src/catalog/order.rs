//! The order of rows, and where a page starts.

use chrono::{DateTime, Datelike as _, Utc};
use events::Timestamp;
use events::listing::Point;
use events::money::parse_amount;
use rust_decimal::Decimal;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use views::listing_catalog::fold;

use super::{CatalogQuery, CatalogRow};
use crate::cursor::CursorError;
use crate::question::Sort;

/// Mean radius of the earth, the same as OpenSearch uses.
const EARTH_RADIUS_METRES: f64 = 6_371_008.771_4;
/// Years that both Postgres and chrono can represent.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// The `order by` clause. The id comes last, so that the order is total.
pub fn clause(sort: Sort) -> &'static str {
    match sort {
        Sort::Newest => "created_at desc, id",
        Sort::PriceUp => "price, id",
        Sort::PriceDown => "price desc, id desc",
        Sort::Title => "title collate \"C\", id",
        Sort::Relevance => "score desc, id",
        Sort::Distance => "score, id",
    }
}

/// Pushes the computed value that some orders use: the rank of the words, or the distance.
pub fn push_score(statement: &mut QueryBuilder<Postgres>, query: &CatalogQuery<'_>) {
    match (query.sort, query.words, query.filters.places.near) {
        (Sort::Relevance, Some(words), _) => {
            statement.push("ts_rank(search, plainto_tsquery('simple', ").push_bind(fold(words)).push("))::float8");
        }
        (Sort::Distance, _, Some(near)) => push_distance(statement, near.point),
        (Sort::Newest | Sort::PriceUp | Sort::PriceDown | Sort::Title | Sort::Relevance | Sort::Distance, _, _) => {
            statement.push("0::float8");
        }
    }
}

/// Pushes the distance in metres from a row's place to a point, by the haversine formula.
pub fn push_distance(statement: &mut QueryBuilder<Postgres>, Point { lat, lon }: Point) {
    statement.push("(2 * ").push_bind(EARTH_RADIUS_METRES).push("::float8 * asin(least(1, sqrt(");
    statement.push("power(sin(radians(lat - ").push_bind(lat).push("::float8) / 2), 2) + cos(radians(lat)) * cos(radians(");
    statement.push_bind(lat).push("::float8)) * power(sin(radians(lon - ").push_bind(lon).push("::float8) / 2), 2)))))");
}

/// The position after the last item of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct ResumePoint {
    key: SortKey,
    id: Uuid,
}

#[derive(Debug, Clone, PartialEq)]
enum SortKey {
    Time(DateTime<Utc>),
    Price(Decimal),
    Title(String),
    Score(f64),
}

impl ResumePoint {
    /// Parses what [`keys`] wrote. A cursor is not signed, so every part is checked.
    pub fn parse(sort: Sort, keys: &[String]) -> Result<Self, CursorError> {
        let [key, id] = keys else { return Err(CursorError::Unreadable) };
        let key = match sort {
            Sort::Newest => {
                let time = key.parse::<Timestamp>().ok().map(Timestamp::get);
                time.filter(|time| YEARS.contains(&time.year())).map(SortKey::Time)
            }
            Sort::PriceUp | Sort::PriceDown => parse_amount(key).ok().map(SortKey::Price),
            Sort::Title => (!key.contains('\0')).then(|| SortKey::Title(key.clone())),
            Sort::Relevance | Sort::Distance => key.parse::<f64>().ok().filter(|score| score.is_finite()).map(SortKey::Score),
        };
        let id = id.parse().map_err(|_| CursorError::Unreadable)?;
        key.map(|key| Self { key, id }).ok_or(CursorError::Unreadable)
    }

    /// Pushes the condition that a row comes after this position.
    pub fn push(self, statement: &mut QueryBuilder<Postgres>, sort: Sort) {
        let Self { key, id } = self;
        let (column, later) = match sort {
            Sort::PriceUp => ("price", ">"),
            Sort::PriceDown => ("price", "<"),
            Sort::Title => ("title collate \"C\"", ">"),
            Sort::Distance => ("score", ">"),
            // These columns descend while ids ascend, which a comparison of row values cannot express.
            Sort::Newest => return push_downward(statement, "created_at", key, id),
            Sort::Relevance => return push_downward(statement, "score", key, id),
        };
        statement.push(" where (").push(column).push(", id) ").push(later).push(" (");
        key.push(statement);
        statement.push(", ").push_bind(id).push(")");
    }
}

fn push_downward(statement: &mut QueryBuilder<Postgres>, column: &'static str, key: SortKey, id: Uuid) {
    statement.push(" where ").push(column).push(" <= ");
    key.clone().push(statement);
    statement.push(" and (").push(column).push(" < ");
    key.push(statement);
    statement.push(" or id > ").push_bind(id).push(")");
}

impl SortKey {
    fn push(self, statement: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Time(time) => statement.push_bind(time),
            Self::Price(price) => statement.push_bind(price),
            Self::Title(title) => statement.push_bind(title),
            Self::Score(score) => statement.push_bind(score),
        };
    }
}

/// The sort keys of a row, for a cursor.
pub fn keys(sort: Sort, row: &CatalogRow) -> Vec<String> {
    let listing = &row.listing;
    let key = match sort {
        Sort::Newest => listing.created_at.to_string(),
        Sort::PriceUp | Sort::PriceDown => listing.price.amount().to_string(),
        Sort::Title => listing.title.clone(),
        Sort::Relevance | Sort::Distance => row.score.unwrap_or_default().to_string(),
    };
    vec![key, listing.id.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";

    fn read(sort: Sort, key: &str) -> Result<ResumePoint, CursorError> {
        ResumePoint::parse(sort, &[key.to_owned(), ID.to_owned()])
    }

    #[test]
    fn keys_are_of_their_order() {
        assert!(read(Sort::Newest, "2026-11-21T05:00:00.000001Z").is_ok());
        assert_eq!(read(Sort::PriceUp, "129.90").unwrap().key, SortKey::Price("129.90".parse().unwrap()));
        assert_eq!(read(Sort::Relevance, "0.06079271").unwrap().key, SortKey::Score(0.060_792_71));
        assert!(read(Sort::Title, "").is_ok());
        for (sort, bad) in [
            (Sort::Newest, "yesterday"),
            (Sort::Newest, "+262143-01-01T00:00:00Z"),
            (Sort::Newest, "-0001-01-01T00:00:00Z"),
            (Sort::PriceUp, "-1"),
            (Sort::PriceDown, "1e9"),
            (Sort::PriceDown, "NaN"),
            (Sort::Title, "\0"),
            (Sort::Relevance, "inf"),
            (Sort::Distance, "NaN"),
            (Sort::Distance, "' or 1=1"),
        ] {
            assert_eq!(read(sort, bad), Err(CursorError::Unreadable), "{bad:?}");
        }
        assert!(ResumePoint::parse(Sort::Title, &["x".to_owned(), "1".to_owned()]).is_err());
        assert!(ResumePoint::parse(Sort::Title, &[ID.to_owned()]).is_err());
    }
}
