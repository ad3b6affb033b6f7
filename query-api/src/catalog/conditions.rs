//! Filters as conditions on rows of `projection.listings`.

use serde_json::json;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use views::listing_catalog::fold;

use super::order::push_distance;
use crate::filters::{Area, Filters, Places};
use crate::visibility::Scope;

/// All conditions, joined by `and`. Never empty: whatever is asked for, tombstones are not shown.
pub fn push(statement: &mut QueryBuilder<Postgres>, filters: &Filters, scope: Scope, words: Option<&str>) {
    statement.push("not deleted");
    match scope {
        // Written out, so that the partial indexes of what is public apply.
        Scope::Public => {
            statement.push(" and status = 'active' and visibility = 'public'");
        }
        Scope::PublicAndOwn(seller) => {
            statement.push(" and (status = 'active' and visibility = 'public' or seller_id = ").push_bind(seller.0).push(")");
        }
        Scope::Everything => {}
    }
    let Filters { sellers, statuses, categories, brands, conditions, tags, price, currencies, available, attributes, places } =
        filters;
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
    if let Some(words) = words {
        statement.push(" and search @@ plainto_tsquery('simple', ").push_bind(fold(words)).push(")");
    }
}

/// The column has one of the values; without any, whatever it has is right.
fn any<T>(statement: &mut QueryBuilder<Postgres>, column: &'static str, values: &[T])
where
    T: Clone + Send + sqlx::Type<Postgres> + sqlx::postgres::PgHasArrayType,
    Vec<T>: for<'q> sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
{
    if !values.is_empty() {
        statement.push(" and ").push(column).push(" = any(").push_bind(values.to_vec()).push(")");
    }
}

/// The column, an array, has one of the values among its own.
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

/// A box whose west is east of its east crosses the date line.
fn push_area(statement: &mut QueryBuilder<Postgres>, Area { west, south, east, north }: Area) {
    let join = if west <= east { " and lon <= " } else { " or lon <= " };
    statement.push("(lat between ").push_bind(south).push(" and ").push_bind(north);
    statement.push(" and (lon >= ").push_bind(west).push(join).push_bind(east).push("))");
}

#[cfg(test)]
mod tests {
    use service::http::Parameters;

    use super::*;

    fn sql(query: &str, scope: Scope, words: Option<&str>) -> String {
        let filters = Filters::take_for_search(&mut Parameters::parse(query).unwrap()).unwrap();
        let mut statement = QueryBuilder::new("");
        push(&mut statement, &filters, scope, words);
        statement.sql().as_str().to_owned()
    }

    #[test]
    fn without_filters_only_the_scope_narrows() {
        assert_eq!(sql("", Scope::Public, None), "not deleted and status = 'active' and visibility = 'public'");
        assert_eq!(
            sql("", Scope::PublicAndOwn(events::UserId::new()), None),
            "not deleted and (status = 'active' and visibility = 'public' or seller_id = $1)"
        );
        assert_eq!(sql("", Scope::Everything, None), "not deleted");
    }

    #[test]
    fn no_value_of_a_question_is_written_into_the_statement() {
        let evil = "x%27%20or%201=1--";
        let query = format!(
            "brand={evil}&category={evil}&tag={evil}&attr.{evil}={evil}&attr.{evil}=y&price_min=1.50&price_max=2&available=true\
             &status=active&condition=new&currency=EUR&near=1,2&radius=3km&bbox=1,2,3,4&bbox=170,2,-170,4"
        );
        let sql = sql(&query, Scope::Everything, Some("x' or 1=1--"));
        assert!(!sql.contains("1=1") && !sql.contains("1.50") && !sql.contains("EUR"), "{sql}");
        assert!(sql.contains("(attributes @> $10 or attributes @> $11)"), "{sql}");
    }
}
