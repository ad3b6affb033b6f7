//! Filters as clauses of OpenSearch: which listings are looked at, whatever the words.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};
use views::listing_search::field;

use super::clause::{filtered, object};
use super::facets::Facet;
use crate::filters::{Area, Filters, Near, PriceRange};
use crate::visibility::Scope;

/// Prices are indexed in thousandths, and OpenSearch rounds a bound to the nearest: what lies between two must be rounded
/// here, to the side that is meant.
const PRICE_DIGITS: u32 = 3;

/// Filters by when they are applied.
#[derive(Debug, Default)]
pub struct Narrowing {
    /// To everything, the counts of facets included.
    pub before_counting: Vec<Value>,
    /// What a wanted facet is about: to the hits, and to the counts of the other facets.
    pub after_counting: Vec<(Facet, Value)>,
}

impl Narrowing {
    pub fn of(filters: &Filters, scope: Scope, facets: &[Facet]) -> Self {
        let mut narrowing = Self { before_counting: visible(scope), after_counting: Vec::new() };
        let Filters { sellers, statuses, categories, brands, conditions, tags, price, currencies, available, attributes, places } =
            filters;

        let always = &mut narrowing.before_counting;
        always.extend(any_of(field::SELLER, sellers));
        always.extend(any_of(field::STATUS, statuses));
        always.extend(any_of(field::TAGS, tags));
        always.extend(any_of(field::CURRENCY, currencies));
        always.extend(available.map(|available| json!({"term": {field::AVAILABLE: available}})));
        always.extend(places.near.map(near));
        if !places.areas.is_empty() {
            always.push(json!({"bool": {"should": places.areas.iter().map(inside).collect::<Vec<_>>()}}));
        }

        let mut about = |facet: Facet, filter: Option<Value>| {
            let Some(filter) = filter else { return };
            if facets.iter().any(|wanted| wanted.is(&facet)) {
                narrowing.after_counting.push((facet, filter));
            } else {
                narrowing.before_counting.push(filter);
            }
        };
        about(Facet::Category, any_of(field::CATEGORIES, categories));
        about(Facet::Brand, any_of(field::BRAND_WHOLE, brands));
        about(Facet::Condition, any_of(field::CONDITION, conditions));
        about(Facet::Price, price.map(between));
        for (name, values) in attributes {
            about(Facet::Attribute { shown: String::new(), name: name.clone() }, Some(with_attribute(name, values)));
        }
        narrowing
    }

    /// The filters that come after counting, as one clause.
    pub fn post_filter(&self) -> Option<Value> {
        let filters: Vec<_> = self.after_counting.iter().map(|(_, filter)| filter.clone()).collect();
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

/// The index keeps a point a little further south and west than it is, by less than this many degrees (a centimetre).
const ROUNDED_DOWN_BY: f64 = 1e-7;

/// With its edges.
fn inside(Area { west, south, east, north }: &Area) -> Value {
    let (west, south) = ((west - ROUNDED_DOWN_BY).max(-180.0), (south - ROUNDED_DOWN_BY).max(-90.0));
    json!({"geo_bounding_box": {field::POINT: {
        "top_left": {"lat": north, "lon": west}, "bottom_right": {"lat": south, "lon": east},
    }}})
}

#[cfg(test)]
mod tests {
    use service::http::Parameters;

    use super::*;

    fn narrowing(query: &str, facets: &str) -> Narrowing {
        let filters = Filters::take_for_search(&mut Parameters::parse(query).unwrap()).unwrap();
        let facets = if facets.is_empty() { Vec::new() } else { Facet::read_all(&[facets.to_owned()]).unwrap() };
        Narrowing::of(&filters, Scope::Public, &facets)
    }

    #[test]
    fn only_what_a_wanted_facet_is_about_waits_until_it_is_counted() {
        let narrowing = narrowing("brand=Sony&condition=new&attr.Color=red&attr.size=1", "brand,attr.COLOR");
        let waiting: Vec<_> = narrowing.after_counting.iter().map(|(about, _)| about.clone()).collect();
        assert!(matches!(&waiting[..], [Facet::Brand, Facet::Attribute { name, .. }] if name == "color"), "{waiting:?}");
        assert_eq!(narrowing.before_counting.len(), visible(Scope::Public).len() + 2);
        assert!(narrowing.post_filter().is_some());
    }

    #[test]
    fn a_bound_of_a_price_is_a_price_of_the_index() {
        let range = |query| narrowing(query, "").before_counting.pop().unwrap()["range"][field::PRICE].clone();
        assert_eq!(range("price_min=49.9&price_max=100"), json!({"gte": "49.9", "lte": "100"}));
        assert_eq!(range("price_min=0.0001"), json!({"gte": "0.001"}), "a price of 0 is below it");
        assert_eq!(range("price_max=0.0009"), json!({"lte": "0.000"}), "a price of 0.001 is above it");
    }
}
