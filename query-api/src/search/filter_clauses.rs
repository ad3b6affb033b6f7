//! Filters as OpenSearch clauses.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};
use views::listing_search::field;

use super::facets::Facet;
use super::query::{filtered, object};
use crate::filters::{Area, Filters, Near, PriceRange};
use crate::visibility::Scope;

/// Prices are indexed in thousandths, and OpenSearch rounds a bound to the nearest one. Bounds are rounded here first, in the
/// direction that keeps their meaning.
const PRICE_DIGITS: u32 = 3;

/// The filters of a search, by where they apply.
#[derive(Debug, Default)]
pub struct FilterClauses {
    /// Apply to hits and to all counts of facets.
    pub query: Vec<Value>,
    /// Apply to hits, and to the counts of other facets than the one that each belongs to.
    pub post: Vec<(Facet, Value)>,
}

impl FilterClauses {
    pub fn of(filters: &Filters, scope: Scope, facets: &[Facet]) -> Self {
        let mut clauses = Self { query: visible(scope), post: Vec::new() };
        let Filters { sellers, statuses, categories, brands, conditions, tags, price, currencies, available, attributes, places } =
            filters;

        let always = &mut clauses.query;
        always.extend(any_of(field::SELLER, sellers));
        always.extend(any_of(field::STATUS, statuses));
        always.extend(any_of(field::TAGS, tags));
        always.extend(any_of(field::CURRENCY, currencies));
        always.extend(available.map(|available| json!({"term": {field::AVAILABLE: available}})));
        always.extend(places.near.map(near));
        if !places.areas.is_empty() {
            always.push(json!({"bool": {"should": places.areas.iter().map(inside).collect::<Vec<_>>()}}));
        }

        let mut of = |facet: Facet, filter: Option<Value>| {
            let Some(filter) = filter else { return };
            if facets.iter().any(|requested| requested.is(&facet)) {
                clauses.post.push((facet, filter));
            } else {
                clauses.query.push(filter);
            }
        };
        of(Facet::Category, any_of(field::CATEGORIES, categories));
        of(Facet::Brand, any_of(field::BRAND_WHOLE, brands));
        of(Facet::Condition, any_of(field::CONDITION, conditions));
        of(Facet::Price, price.map(between));
        for (name, values) in attributes {
            of(Facet::Attribute { requested: String::new(), name: name.clone() }, Some(with_attribute(name, values)));
        }
        clauses
    }

    /// The `post_filter` of the request.
    pub fn post_filter(&self) -> Option<Value> {
        let filters: Vec<_> = self.post.iter().map(|(_, filter)| filter.clone()).collect();
        (!filters.is_empty()).then(|| filtered(filters))
    }
}

fn visible(scope: Scope) -> Vec<Value> {
    let term = |field, value| object([("term", object([(field, value)]))]);
    let public = || vec![term(field::STATUS, json!("active")), term(field::VISIBILITY, json!("public"))];
    let mut clauses = vec![term(field::DELETED, json!(false))];
    match scope {
        Scope::Public => clauses.extend(public()),
        Scope::PublicAndOwn(seller) => clauses.push(json!({"bool": {"should": [
            filtered(public()),
            term(field::SELLER, json!(seller)),
        ]}})),
        Scope::Everything => {}
    }
    clauses
}

fn any_of(field: &str, values: &[impl serde::Serialize]) -> Option<Value> {
    match values {
        [] => None,
        [only] => Some(json!({"term": {field: only}})),
        several => Some(json!({"terms": {field: several}})),
    }
}

fn between(PriceRange { min, max }: PriceRange) -> Value {
    let step = |amount: Decimal, strategy| amount.round_dp_with_strategy(PRICE_DIGITS, strategy);
    let mut range = serde_json::Map::new();
    if let Some(min) = min {
        range.insert("gte".to_owned(), json!(step(min, RoundingStrategy::ToPositiveInfinity)));
    }
    if let Some(max) = max {
        range.insert("lte".to_owned(), json!(step(max, RoundingStrategy::ToNegativeInfinity)));
    }
    json!({"range": {field::PRICE: range}})
}

fn with_attribute(name: &str, values: &[String]) -> Value {
    let mut clauses = vec![json!({"term": {field::ATTRIBUTE_NAME: name}})];
    clauses.extend(any_of(field::ATTRIBUTE_VALUE, values));
    json!({"nested": {"path": field::ATTRIBUTES, "query": {"bool": {"filter": clauses}}, "score_mode": "none"}})
}

fn near(Near { point, radius_metres }: Near) -> Value {
    match radius_metres {
        Some(metres) => json!({"geo_distance": {"distance": format!("{metres}m"), field::POINT: point}}),
        None => json!({"exists": {"field": field::POINT}}),
    }
}

/// Degrees (a centimetre) by which the index may round a point down, to the south and west.
const ROUNDED_DOWN_BY: f64 = 1e-7;

/// Matches points in the box, edges included.
fn inside(Area { west, south, east, north }: &Area) -> Value {
    let (west, south) = ((west - ROUNDED_DOWN_BY).max(-180.0), (south - ROUNDED_DOWN_BY).max(-90.0));
    json!({"geo_bounding_box": {field::POINT: {
        "top_left": {"lat": north, "lon": west}, "bottom_right": {"lat": south, "lon": east},
    }}})
}

#[cfg(test)]
mod tests {
    use events::listing::Condition;

    use super::*;
    use crate::filters::attribute_filters;

    #[test]
    fn only_what_a_wanted_facet_is_about_waits_until_it_is_counted() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let filters = Filters {
            brands: vec!["Sony".to_owned()],
            conditions: vec![Condition::New],
            attributes: attribute_filters(vec![pair("Color", "red"), pair("size", "1")]).unwrap(),
            ..Filters::default()
        };
        let facets = Facet::list(&["brand,attr.COLOR".to_owned()]).unwrap();
        let clauses = FilterClauses::of(&filters, Scope::Public, &facets);
        let post: Vec<_> = clauses.post.iter().map(|(of, _)| of.clone()).collect();
        assert!(matches!(&post[..], [Facet::Brand, Facet::Attribute { name, .. }] if name == "color"), "{post:?}");
        assert_eq!(clauses.query.len(), visible(Scope::Public).len() + 2);
        assert!(clauses.post_filter().is_some());
    }

    #[test]
    fn a_bound_of_a_price_is_a_price_of_the_index() {
        let range = |min: Option<&str>, max: Option<&str>| {
            let [min, max] = [min, max].map(|bound| bound.map(|bound| bound.parse().unwrap()));
            between(PriceRange { min, max })["range"][field::PRICE].clone()
        };
        assert_eq!(range(Some("49.9"), Some("100")), json!({"gte": "49.9", "lte": "100"}));
        assert_eq!(range(Some("0.0001"), None), json!({"gte": "0.001"}), "a price of 0 is below it");
        assert_eq!(range(None, Some("0.0009")), json!({"lte": "0.000"}), "a price of 0.001 is above it");
    }
}
