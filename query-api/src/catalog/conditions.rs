//! Filters as conditions on rows of `projection.listings`.

use serde_json::json;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use views::listing_catalog::fold;

use super::CatalogQuery;
use super::order::push_distance;
use crate::filters::{Area, Filters, Places};
use crate::visibility::Scope;

/// Pushes all conditions, joined by `and`. They always restrict the rows to one generation, without tombstones.
pub fn push(statement: &mut QueryBuilder<Postgres>, query: &CatalogQuery<'_>) {
    statement.push("generation = ").push_bind(query.generation).push(" and not deleted");
    match query.scope {
        // Constants instead of parameters, so that the partial indexes of public listings apply.
        Scope::Public => {
            statement.push(" and status = 'active' and visibility = 'public'");
        }
        Scope::PublicAndOwn(seller) => {
            statement.push(" and (status = 'active' and visibility = 'public' or seller_id = ").push_bind(seller.0).push(")");
        }
        Scope::Everything => {}
    }
    let Filters { sellers, statuses, categories, brands, conditions, tags, price, currencies, available, attributes, places } =
        query.filters;
    any(statement, "seller_id", &sellers.iter().map(|seller| seller.0).collect::<Vec<Uuid>>());
    any(statement, "status", &statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>());
    any(statement, "condition", &conditions.iter().map(|condition| condition.as_str()).collect::<Vec<_>>());
    any(statement, "currency", &currencies.iter().map(|currency| currency.code()).collect::<Vec<_>>());
    any(statement, "brand", brands);
    overlaps(statement, "categories", categories);
    overlaps(statement, "tags", tags);
    if let Some(available) = available {
        statement.push(" and available = ").push_bind(*available);
    }
    if let Some(price) = price {
        if let Some(min) = price.min {
            statement.push(" and price >= ").push_bind(min);
        }
        if let Some(max) = price.max {
            statement.push(" and price <= ").push_bind(max);
        }
    }
    for (name, values) in attributes {
        for (at, value) in values.iter().enumerate() {
            statement.push(if at == 0 { " and (attributes @> " } else { " or attributes @> " });
            statement.push_bind(Json(json!({ name: [value] })));
        }
        statement.push(")");
    }
    push_places(statement, places);
    if let Some(words) = query.words {
        statement.push(" and search @@ plainto_tsquery('simple', ").push_bind(fold(words)).push(")");
    }
}

/// Requires that the column has one of the values; without values there is no condition.
fn any<T>(statement: &mut QueryBuilder<Postgres>, column: &'static str, values: &[T])
where
    T: Clone + Send + sqlx::Type<Postgres> + sqlx::postgres::PgHasArrayType,
    Vec<T>: for<'q> sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
{
    if !values.is_empty() {
        statement.push(" and ").push(column).push(" = any(").push_bind(values.to_vec()).push(")");
    }
}

/// Requires that the array column has at least one of the values.
fn overlaps(statement: &mut QueryBuilder<Postgres>, column: &'static str, values: &[String]) {
    if !values.is_empty() {
        statement.push(" and ").push(column).push(" && ").push_bind(values.to_vec());
    }
}

fn push_places(statement: &mut QueryBuilder<Postgres>, places: &Places) {
    if let Some(near) = places.near {
        statement.push(" and lat is not null");
        if let Some(radius) = near.radius_metres {
            statement.push(" and ");
            push_distance(statement, near.point);
            statement.push(" <= ").push_bind(radius);
        }
    }
    for (at, area) in places.areas.iter().enumerate() {
        statement.push(if at == 0 { " and (" } else { " or " });
        push_area(statement, *area);
    }
    if !places.areas.is_empty() {
        statement.push(")");
    }
}

/// Requires a place in a box. One whose west is east of its east crosses the date line.
fn push_area(statement: &mut QueryBuilder<Postgres>, Area { west, south, east, north }: Area) {
    let join = if west <= east { " and lon <= " } else { " or lon <= " };
    statement.push("(lat between ").push_bind(south).push(" and ").push_bind(north);
    statement.push(" and (lon >= ").push_bind(west).push(join).push_bind(east).push("))");
}

#[cfg(test)]
mod tests {
    use events::listing::{Condition, Status};
    use rust_decimal::Decimal;

    use super::*;
    use crate::filters::{Near, PriceRange, attribute_filters, point};
    use crate::question::Sort;

    fn sql(filters: &Filters, scope: Scope, words: Option<&str>) -> String {
        let mut statement = QueryBuilder::new("");
        push(&mut statement, &CatalogQuery { generation: 1, filters, scope, words, sort: Sort::Newest, after: None, limit: 1 });
        statement.sql().as_str().to_owned()
    }

    #[test]
    fn without_filters_only_the_scope_narrows() {
        let all = Filters::default();
        assert_eq!(
            sql(&all, Scope::Public, None),
            "generation = $1 and not deleted and status = 'active' and visibility = 'public'"
        );
        assert_eq!(
            sql(&all, Scope::PublicAndOwn(events::UserId::new()), None),
            "generation = $1 and not deleted and (status = 'active' and visibility = 'public' or seller_id = $2)"
        );
        assert_eq!(sql(&all, Scope::Everything, None), "generation = $1 and not deleted");
    }

    #[test]
    fn no_value_of_a_question_is_written_into_the_statement() {
        let evil = || "x' or 1=1--".to_owned();
        let filters = Filters {
            sellers: vec![events::UserId::new()],
            statuses: vec![Status::Active],
            categories: vec![evil()],
            brands: vec![evil()],
            conditions: vec![Condition::New],
            tags: vec![evil()],
            price: Some(PriceRange { min: Some(Decimal::new(150, 2)), max: Some(Decimal::from(2)) }),
            currencies: vec!["EUR".parse().unwrap()],
            available: Some(true),
            attributes: attribute_filters(vec![(evil(), evil()), (evil(), "y".to_owned())]).unwrap(),
            places: Places {
                near: Some(Near { point: point(1.0, 2.0).unwrap(), radius_metres: Some(3_000.0) }),
                areas: [[1.0, 2.0, 3.0, 4.0], [170.0, 2.0, -170.0, 4.0]].map(|corners| Area::new(corners).unwrap()).into(),
            },
        };
        let sql = sql(&filters, Scope::Everything, Some("x' or 1=1--"));
        assert!(!sql.contains("1=1") && !sql.contains("1.50") && !sql.contains("EUR"), "{sql}");
        assert!(sql.contains("(attributes @> $12 or attributes @> $13)"), "{sql}");
    }
}
