//! Facets: how many of the listings have each brand, category, price, condition or attribute value.
//!
//! The filter of a facet does not restrict that facet's own counts, so that a reader sees the other values: filters of requested facets
//! are applied after counting, and each facet is counted under the filters of the others.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use views::listing_search::field;

use crate::question::QuestionError;

/// Most values of a facet.
const VALUES_MAX: usize = 50;
/// Most facets of a search: each is another pass over the hits.
const FACETS_MAX: usize = 20;
/// The lower bounds of the price steps.
const PRICE_STEPS: [&str; 6] = ["0", "10", "50", "100", "500", "1000"];

/// A property that listings are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Facet {
    Brand,
    Category,
    Price,
    Condition,
    /// An attribute: its name as it was requested, and in lower case.
    Attribute {
        requested: String,
        name: String,
    },
}

/// A value and how many listings have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Count {
    Value {
        value: String,
        count: u64,
    },
    /// Prices from one bound up to, but without, the next.
    Step {
        from: &'static str,
        #[schema(required)]
        to: Option<&'static str>,
        count: u64,
    },
}

/// The counts of each facet, by its name in the query.
pub type FacetCounts = BTreeMap<String, Vec<Count>>;

impl Facet {
    /// Parses names such as `brand,category,attr.color`, in one list or several.
    pub fn list(lists: &[String]) -> Result<Vec<Self>, QuestionError> {
        let mut facets: Vec<Self> = Vec::new();
        for name in lists.iter().flat_map(|list| list.split(',')) {
            let facet = Self::from_name(name)?;
            if facets.iter().any(|known| known.is(&facet)) {
                continue;
            }
            if facets.len() == FACETS_MAX {
                return Err(QuestionError::TooManyFacets(FACETS_MAX));
            }
            facets.push(facet);
        }
        Ok(facets)
    }

    fn from_name(name: &str) -> Result<Self, QuestionError> {
        Ok(match name {
            "brand" => Self::Brand,
            "category" => Self::Category,
            "price" => Self::Price,
            "condition" => Self::Condition,
            _ => match name.strip_prefix("attr.") {
                Some(attribute) if !attribute.is_empty() => {
                    Self::Attribute { requested: name.to_owned(), name: views::listing_catalog::attribute_name(attribute) }
                }
                Some(_) | None => return Err(QuestionError::UnknownFacet),
            },
        })
    }

    /// Whether both count by the same property.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Attribute { name, .. }, Self::Attribute { name: other, .. }) => name == other,
            (one, other) => one == other,
        }
    }

    /// The name in the query and in the answer.
    pub fn name(&self) -> &str {
        match self {
            Self::Brand => "brand",
            Self::Category => "category",
            Self::Price => "price",
            Self::Condition => "condition",
            Self::Attribute { requested, .. } => requested,
        }
    }

    fn aggregation(&self) -> Value {
        let terms = |field: &str| json!({"terms": {"field": field, "size": VALUES_MAX}});
        match self {
            Self::Brand => terms(field::BRAND_WHOLE),
            Self::Category => terms(field::CATEGORIES),
            Self::Condition => terms(field::CONDITION),
            Self::Price => {
                let number = |step: &str| step.parse::<u32>().unwrap_or_default();
                let ranges: Vec<_> = steps()
                    .map(|(from, to)| match to {
                        Some(to) => json!({"from": number(from), "to": number(to)}),
                        None => json!({"from": number(from)}),
                    })
                    .collect();
                json!({"range": {"field": field::PRICE, "ranges": ranges}})
            }
            // A listing may have an attribute twice, so the inner aggregation counts listings.
            Self::Attribute { name, .. } => json!({
                "nested": {"path": field::ATTRIBUTES},
                "aggs": {"named": {
                    "filter": {"term": {field::ATTRIBUTE_NAME: name}},
                    "aggs": {"values": {
                        "terms": {"field": field::ATTRIBUTE_VALUE, "size": VALUES_MAX},
                        "aggs": {"listings": {"reverse_nested": {}}},
                    }},
                }},
            }),
        }
    }

    fn counts(&self, aggregation: &Value) -> Vec<Count> {
        let buckets = |of: &Value| of["buckets"].as_array().cloned().unwrap_or_default();
        let count = |bucket: &Value| bucket["doc_count"].as_u64().unwrap_or_default();
        let value = |bucket: &Value| bucket["key"].as_str().unwrap_or_default().to_owned();
        match self {
            Self::Brand | Self::Category | Self::Condition => {
                let values = buckets(aggregation).into_iter();
                values.map(|bucket| Count::Value { value: value(&bucket), count: count(&bucket) }).collect()
            }
            Self::Price => steps()
                .zip(buckets(aggregation))
                .map(|((from, to), bucket)| Count::Step { from, to, count: count(&bucket) })
                .collect(),
            Self::Attribute { .. } => {
                let mut values: Vec<(String, u64)> = buckets(&aggregation["named"]["values"])
                    .iter()
                    .map(|bucket| (value(bucket), count(&bucket["listings"])))
                    .collect();
                values.sort_by(|(one, fewer), (other, more)| more.cmp(fewer).then_with(|| one.cmp(other)));
                values.into_iter().map(|(value, count)| Count::Value { value, count }).collect()
            }
        }
    }
}

fn steps() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    PRICE_STEPS.iter().enumerate().map(|(at, from)| (*from, PRICE_STEPS.get(at + 1).copied()))
}

/// The aggregations of a request. `post_filters` are applied after counting, each with the facet that it belongs to.
pub fn aggregations(facets: &[Facet], post_filters: &[(Facet, Value)]) -> Value {
    let one = |facet: &Facet| {
        let others: Vec<_> = post_filters.iter().filter(|(of, _)| !of.is(facet)).map(|(_, filter)| filter.clone()).collect();
        if others.is_empty() {
            facet.aggregation()
        } else {
            json!({"filter": {"bool": {"filter": others}}, "aggs": {UNDER_OTHERS: facet.aggregation()}})
        }
    };
    // Numbers are the aggregations' names, because OpenSearch does not allow every character in them.
    facets.iter().enumerate().map(|(at, facet)| (at.to_string(), one(facet))).collect::<serde_json::Map<_, _>>().into()
}

const UNDER_OTHERS: &str = "under_others";

/// Parses the counts in OpenSearch's answer to [`aggregations`].
pub fn counted(facets: &[Facet], answer: &Value) -> FacetCounts {
    let one = |at: usize, facet: &Facet| {
        let aggregation = &answer[at.to_string()];
        let aggregation = aggregation.get(UNDER_OTHERS).unwrap_or(aggregation);
        (facet.name().to_owned(), facet.counts(aggregation))
    };
    facets.iter().enumerate().map(|(at, facet)| one(at, facet)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(list: &str) -> Result<Vec<Facet>, QuestionError> {
        Facet::list(&[list.to_owned()])
    }

    #[test]
    fn a_list_of_facets_is_read_once_each() {
        let facets = list("brand,attr.Color,price,brand,attr.color").unwrap();
        assert_eq!(facets.iter().map(Facet::name).collect::<Vec<_>>(), ["brand", "attr.Color", "price"]);
        for bad in ["", "brand,", "title", "attr.", "brand;drop", "price.amount"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_facet_counts_under_the_filters_of_the_others() {
        let facets = list("brand,condition").unwrap();
        let post_filters = [(Facet::Brand, json!({"term": {"brand.whole": "Sony"}}))];
        let request = aggregations(&facets, &post_filters);
        assert!(request["0"]["terms"].is_object(), "its own filter does not narrow it: {request}");
        assert_eq!(request["1"]["filter"]["bool"]["filter"][0], post_filters[0].1);

        let answer = json!({
            "0": {"buckets": [{"key": "Sony", "doc_count": 2}, {"key": "Bose", "doc_count": 1}]},
            "1": {"doc_count": 2, "under_others": {"buckets": [{"key": "new", "doc_count": 2}]}},
        });
        let value = |value: &str, count| Count::Value { value: value.to_owned(), count };
        let expected =
            [("brand".to_owned(), vec![value("Sony", 2), value("Bose", 1)]), ("condition".to_owned(), vec![value("new", 2)])];
        assert_eq!(counted(&facets, &answer), expected.into());
    }

    #[test]
    fn price_steps_meet() {
        let all: Vec<_> = steps().collect();
        assert_eq!(all.first(), Some(&("0", Some("10"))));
        assert_eq!(all.last(), Some(&("1000", None)));
        assert!(all.windows(2).all(|pair| pair[0].1 == Some(pair[1].0)));
    }
}
