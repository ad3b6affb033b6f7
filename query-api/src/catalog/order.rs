//! In which order rows come, and where a page begins.

use chrono::{DateTime, Datelike as _, Utc};
use events::Timestamp;
use events::listing::Point;
use events::money::parse_amount;
use rust_decimal::Decimal;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use views::listing_catalog::fold;

use super::{CatalogueRow, Wanted};
use crate::cursor::CursorError;
use crate::filters::Sort;

/// Mean radius of the earth, as OpenSearch takes it.
const EARTH_RADIUS_METRES: f64 = 6_371_008.771_4;
/// Outside of these years Postgres and chrono do not agree on what a time is.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// The order of rows. The id is last, so that no two of them are in the same place.
#[must_use]
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

/// What rows are ordered by where that is no column: how well the words match, or how far it is.
pub fn push_score(statement: &mut QueryBuilder<Postgres>, wanted: &Wanted<'_>) {
    match (wanted.sort, wanted.words, wanted.filters.places.near) {
        (Sort::Relevance, Some(words), _) => {
            let query = fold(words);
            statement.push("ts_rank(search, plainto_tsquery('simple', ").push_bind(query).push("))::float8");
        }
        (Sort::Distance, _, Some(near)) => push_distance(statement, near.point),
        (Sort::Newest | Sort::PriceUp | Sort::PriceDown | Sort::Title | Sort::Relevance | Sort::Distance, _, _) => {
            statement.push("0::float8");
        }
    }
}

/// Metres from a row's place to a point, by the haversine formula.
pub fn push_distance(statement: &mut QueryBuilder<Postgres>, Point { lat, lon }: Point) {
    statement.push("(2 * ").push_bind(EARTH_RADIUS_METRES).push("::float8 * asin(least(1, sqrt(");
    statement.push("power(sin(radians(lat - ").push_bind(lat).push("::float8) / 2), 2) + cos(radians(lat)) * cos(radians(");
    statement.push_bind(lat).push("::float8)) * power(sin(radians(lon - ").push_bind(lon).push("::float8) / 2), 2)))))");
}

/// The place behind the last item of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    key: Key,
    id: Uuid,
}

#[derive(Debug, Clone, PartialEq)]
enum Key {
    Time(DateTime<Utc>),
    Price(Decimal),
    Title(String),
    Score(f64),
}

impl After {
    /// Reads what [`keys`] wrote. A cursor is not signed: anything may stand in it.
    pub fn read(sort: Sort, keys: &[String]) -> Result<Self, CursorError> {
        let [key, id] = keys else { return Err(CursorError::Unreadable) };
        let key = match sort {
            Sort::Newest => {
                let time = key.parse::<Timestamp>().ok().map(Timestamp::get);
                time.filter(|time| YEARS.contains(&time.year())).map(Key::Time)
            }
            Sort::PriceUp | Sort::PriceDown => parse_amount(key).ok().map(Key::Price),
            Sort::Title => (!key.contains('\0')).then(|| Key::Title(key.clone())),
            Sort::Relevance | Sort::Distance => key.parse::<f64>().ok().filter(|score| score.is_finite()).map(Key::Score),
        };
        let id = id.parse().map_err(|_| CursorError::Unreadable)?;
        key.map(|key| Self { key, id }).ok_or(CursorError::Unreadable)
    }

    /// The condition that a row comes later.
    pub fn push(self, statement: &mut QueryBuilder<Postgres>, sort: Sort) {
        let Self { key, id } = self;
        let (column, later) = match sort {
            Sort::PriceUp => ("price", ">"),
            Sort::PriceDown => ("price", "<"),
            Sort::Title => ("title collate \"C\"", ">"),
            Sort::Distance => ("score", ">"),
            // These go down while ids go up, which no comparison of rows can say.
            Sort::Newest => return push_downward(statement, "created_at", key, id),
            Sort::Relevance => return push_downward(statement, "score", key, id),
        };
        statement.push(" where (").push(column).push(", id) ").push(later).push(" (");
        key.push(statement);
        statement.push(", ").push_bind(id).push(")");
    }
}

fn push_downward(statement: &mut QueryBuilder<Postgres>, column: &'static str, key: Key, id: Uuid) {
    statement.push(" where ").push(column).push(" <= ");
    key.clone().push(statement);
    statement.push(" and (").push(column).push(" < ");
    key.push(statement);
    statement.push(" or id > ").push_bind(id).push(")");
}

impl Key {
    fn push(self, statement: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Time(time) => statement.push_bind(time),
            Self::Price(price) => statement.push_bind(price),
            Self::Title(title) => statement.push_bind(title),
            Self::Score(score) => statement.push_bind(score),
        };
    }
}

/// The keys of a row, as a cursor holds them.
#[must_use]
pub fn keys(sort: Sort, row: &CatalogueRow) -> Vec<String> {
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

    fn read(sort: Sort, key: &str) -> Result<After, CursorError> {
        After::read(sort, &[key.to_owned(), ID.to_owned()])
    }

    #[test]
    fn keys_are_of_their_order() {
        assert!(read(Sort::Newest, "2026-11-21T05:00:00.000001Z").is_ok());
        assert_eq!(read(Sort::PriceUp, "129.90").unwrap().key, Key::Price("129.90".parse().unwrap()));
        assert_eq!(read(Sort::Relevance, "0.06079271").unwrap().key, Key::Score(0.060_792_71));
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
        assert!(After::read(Sort::Title, &["x".to_owned(), "1".to_owned()]).is_err());
        assert!(After::read(Sort::Title, &[ID.to_owned()]).is_err());
    }
}
