//! Which listings a reader wants to see: typed and checked filters for lists and searches.
//!
//! Several values of one filter mean *or*; different filters mean *and*. No value becomes text of a store's query language: each is
//! bound as a parameter, or sent as a term that is compared literally.

mod place;

use std::collections::BTreeMap;

use events::listing::{Condition, Status};
use events::{Currency, UserId};
use rust_decimal::Decimal;
use serde::Serialize;

pub use place::{Area, Near, PlaceError, Places, Radius, point};

use crate::question::QuestionError;

/// Maximum number of values of one filter: each is a term that a store looks up.
const VALUES_MAX: usize = 100;
/// Maximum number of attribute filters: each is a join.
const ATTRIBUTES_MAX: usize = 20;

/// Which listings are wanted. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filters {
    pub sellers: Vec<UserId>,
    pub statuses: Vec<Status>,
    pub categories: Vec<String>,
    pub brands: Vec<String>,
    pub conditions: Vec<Condition>,
    pub tags: Vec<String>,
    pub price: Option<PriceRange>,
    /// Prices are compared within these; see [`Filters::compare_prices`].
    pub currencies: Vec<Currency>,
    /// `None` means both.
    pub available: Option<bool>,
    pub attributes: AttributeFilters,
    pub places: Places,
}

/// Attribute name in lower case → any of these values. Made by [`attribute_filters`].
pub type AttributeFilters = BTreeMap<String, Vec<String>>;

/// A range of prices, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PriceRange {
    pub min: Option<Decimal>,
    pub max: Option<Decimal>,
}

impl PriceRange {
    /// The range in which a price satisfies any of the lower and any of the upper bounds; `None` without bounds.
    pub fn of_any(mins: impl Iterator<Item = Decimal>, maxs: impl Iterator<Item = Decimal>) -> Option<Self> {
        let (min, max) = (mins.min(), maxs.max());
        (min.is_some() || max.is_some()).then_some(Self { min, max })
    }
}

impl Filters {
    /// Refuses more values than a store should look up, and restricts a price range to one currency.
    pub fn checked(mut self) -> Result<Self, QuestionError> {
        let Self { sellers, statuses, categories, brands, conditions, tags, currencies, attributes, places, .. } = &self;
        let counts = [
            ("seller_id", sellers.len()),
            ("status", statuses.len()),
            ("category", categories.len()),
            ("brand", brands.len()),
            ("condition", conditions.len()),
            ("tag", tags.len()),
            ("currency", currencies.len()),
            ("bbox", places.areas.len()),
            ("attr.<name>", attributes.values().map(Vec::len).max().unwrap_or_default()),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count > VALUES_MAX) {
            return Err(QuestionError::TooManyValues { name, most: VALUES_MAX });
        }
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(QuestionError::TooManyAttributes(ATTRIBUTES_MAX));
        }
        if self.price.is_some() {
            self.compare_prices();
        }
        Ok(self)
    }

    /// Restricts the listings to the wanted currencies, or to the default one, so that prices can be compared.
    pub fn compare_prices(&mut self) {
        if self.currencies.is_empty() {
            self.currencies.push(Currency::DEFAULT);
        }
    }
}

/// Groups attribute values by the attribute's name, which is stored in lower case.
pub fn attribute_filters(pairs: Vec<(String, String)>) -> Result<AttributeFilters, QuestionError> {
    let mut by_name = AttributeFilters::new();
    for (name, value) in pairs {
        if name.is_empty() {
            return Err(QuestionError::NamelessAttribute);
        }
        by_name.entry(views::listing_catalog::attribute_name(&name)).or_default().push(value);
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_grouped_by_name_in_lower_case() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let attributes = attribute_filters(vec![pair("Color", "black"), pair("size", "1"), pair("color", "red")]).unwrap();
        assert_eq!(attributes["color"], ["black", "red"]);
        assert_eq!(attributes.len(), 2);
        assert!(attribute_filters(vec![pair("", "x")]).is_err());
    }

    #[test]
    fn prices_are_compared_in_one_currency() {
        let price = PriceRange::of_any([Decimal::from(50), Decimal::from(20)].into_iter(), [Decimal::from(100)].into_iter());
        assert_eq!(price, Some(PriceRange { min: Some(Decimal::from(20)), max: Some(Decimal::from(100)) }));
        let filters = Filters { price, ..Filters::default() }.checked().unwrap();
        assert_eq!(filters.currencies, [Currency::DEFAULT]);
        let euro: Currency = "EUR".parse().unwrap();
        let filters = Filters { price, currencies: vec![euro], ..Filters::default() }.checked().unwrap();
        assert_eq!(filters.currencies, [euro]);
        assert_eq!(Filters::default().checked().unwrap().currencies, []);
    }

    #[test]
    fn nobody_asks_for_a_thousand_terms() {
        let many = || vec!["x".to_owned(); VALUES_MAX + 1];
        assert!(Filters { brands: many(), ..Filters::default() }.checked().is_err());
        let attributes = BTreeMap::from([("a".to_owned(), many())]);
        assert!(Filters { attributes, ..Filters::default() }.checked().is_err());
        let attributes = (0..=ATTRIBUTES_MAX).map(|name| (name.to_string(), vec!["x".to_owned()])).collect();
        assert!(Filters { attributes, ..Filters::default() }.checked().is_err());
    }
}
