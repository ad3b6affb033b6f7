//! What a reader wants to see: filters as the query names them, fully checked, for lists, searches and their substitute.
//!
//! A filter given several times means *or*; different filters mean *and*. Nothing of a query reaches a store as text of
//! that store's language: every value here is typed, or a term that is compared as it is.

mod place;
mod price;

use std::collections::BTreeMap;

use events::listing::{Condition, Status};
use events::{Currency, UserId};
use serde::{Deserialize, Serialize};
use service::http::Parameters;
use service::problem::Problem;
use utoipa::IntoParams;

pub use place::{Area, Near, PlaceParameters, Places};
pub use price::{Amount, PriceRange};

/// More values of one filter than this are refused: each is a term that a store looks up.
const VALUES_MAX: usize = 100;
/// More attributes than this are refused: each is a join.
const ATTRIBUTES_MAX: usize = 20;
/// Attribute filters are `attr.<name>=value`.
const ATTRIBUTE_PREFIX: &str = "attr.";

/// The filters that lists and searches share. Each may come several times.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FilterParameters {
    /// Listings of these sellers.
    #[serde(default)]
    seller_id: Vec<UserId>,
    #[serde(default)]
    status: Vec<Status>,
    /// A category path; matches the node and all below it.
    #[serde(default)]
    #[param(example = "electronics/audio")]
    category: Vec<String>,
    #[serde(default)]
    brand: Vec<String>,
    #[serde(default)]
    condition: Vec<Condition>,
    #[serde(default)]
    tag: Vec<String>,
    /// Of listings in `currency`, by default RSD.
    #[serde(default)]
    #[param(value_type = Vec<String>, example = "49.90")]
    price_min: Vec<Amount>,
    /// Of listings in `currency`, by default RSD.
    #[serde(default)]
    #[param(value_type = Vec<String>, example = "129.99")]
    price_max: Vec<Amount>,
    #[serde(default)]
    currency: Vec<Currency>,
    /// Whether pieces are left.
    #[serde(default)]
    available: Vec<bool>,
}

impl FilterParameters {
    const NAMES: [&str; 10] =
        ["seller_id", "status", "category", "brand", "condition", "tag", "price_min", "price_max", "currency", "available"];
}

/// Which listings are wanted. Empty is all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filters {
    pub sellers: Vec<UserId>,
    pub statuses: Vec<Status>,
    pub categories: Vec<String>,
    pub brands: Vec<String>,
    pub conditions: Vec<Condition>,
    pub tags: Vec<String>,
    pub price: Option<PriceRange>,
    /// Prices are compared in these; see [`Filters::compare_prices`].
    pub currencies: Vec<Currency>,
    /// `None` where both are as good.
    pub available: Option<bool>,
    /// Lower-case name → any of these values.
    pub attributes: BTreeMap<String, Vec<String>>,
    pub places: Places,
}

impl Filters {
    /// Takes the filters of a list out of its parameters; what it leaves is the route's own.
    pub fn take_for_list(parameters: &mut Parameters) -> Result<Self, Problem> {
        let FilterParameters { seller_id, status, category, brand, condition, tag, price_min, price_max, currency, available } =
            parameters.take_named(&FilterParameters::NAMES).read()?;
        let mut filters = Self {
            sellers: limited("seller_id", seller_id)?,
            statuses: limited("status", status)?,
            categories: limited("category", category)?,
            brands: limited("brand", brand)?,
            conditions: limited("condition", condition)?,
            tags: limited("tag", tag)?,
            price: PriceRange::of_any(&price_min, &price_max),
            currencies: limited("currency", currency)?,
            available: available.first().copied().filter(|first| available.iter().all(|other| other == first)),
            attributes: BTreeMap::new(),
            places: Places::default(),
        };
        if filters.price.is_some() {
            filters.compare_prices();
        }
        Ok(filters)
    }

    /// Takes the filters of a search out of its parameters: those of a list, attributes and places.
    pub fn take_for_search(parameters: &mut Parameters) -> Result<Self, Problem> {
        let attributes = attributes(parameters.take_prefixed(ATTRIBUTE_PREFIX))?;
        let places = parameters.take_named(&PlaceParameters::NAMES).read::<PlaceParameters>()?.places()?;
        Ok(Self { attributes, places, ..Self::take_for_list(parameters)? })
    }

    /// From now on only listings in the wanted currencies, or in the default one, are looked at: prices are to be compared.
    pub fn compare_prices(&mut self) {
        if self.currencies.is_empty() {
            self.currencies.push(Currency::DEFAULT);
        }
    }
}

fn limited<T>(name: &str, values: Vec<T>) -> Result<Vec<T>, Problem> {
    if values.len() > VALUES_MAX {
        return Err(Problem::malformed(format!("The parameter {name} may come at most {VALUES_MAX} times")));
    }
    Ok(values)
}

fn attributes(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        if name.is_empty() {
            return Err(Problem::malformed("The parameter attr. must name an attribute, as in attr.color=black"));
        }
        let name = views::listing_catalog::attribute_name(&name);
        let values = by_name.entry(name).or_default();
        values.push(value);
        if values.len() > VALUES_MAX {
            return Err(Problem::malformed(format!("A filter by attribute may come at most {VALUES_MAX} times")));
        }
    }
    if by_name.len() > ATTRIBUTES_MAX {
        return Err(Problem::malformed(format!("At most {ATTRIBUTES_MAX} attributes may be filtered by")));
    }
    Ok(by_name)
}

/// In which order listings are wanted.
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
    /// What a list can be sorted by; the first is the default.
    pub const OF_LISTS: &[Self] = &[Self::Newest, Self::PriceUp, Self::PriceDown, Self::Title];
    /// What a search can be sorted by; the first is the default.
    pub const OF_SEARCHES: &[Self] = &[Self::Relevance, Self::PriceUp, Self::PriceDown, Self::Newest, Self::Distance];

    /// The name in a query.
    #[must_use]
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

    /// Whether listings in different currencies would be compared by price.
    #[must_use]
    pub fn compares_prices(self) -> bool {
        match self {
            Self::PriceUp | Self::PriceDown => true,
            Self::Relevance | Self::Newest | Self::Title | Self::Distance => false,
        }
    }

    /// Reads a name; one that the route cannot sort by is refused.
    pub fn read(name: Option<&str>, possible: &[Self]) -> Result<Self, Problem> {
        let found = match name {
            None => possible.first(),
            Some(name) => possible.iter().find(|sort| sort.name() == name),
        };
        found.copied().ok_or_else(|| {
            let names: Vec<_> = possible.iter().map(|sort| sort.name()).collect();
            Problem::malformed(format!("The parameter sort must be one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn for_search(query: &str) -> Result<Filters, Problem> {
        let mut parameters = Parameters::parse(query)?;
        let filters = Filters::take_for_search(&mut parameters)?;
        assert_eq!(parameters.iter().count(), 0, "left: {parameters:?}");
        Ok(filters)
    }

    #[test]
    fn no_filter_is_everything() {
        assert_eq!(for_search("").unwrap(), Filters::default());
    }

    #[test]
    fn a_repeated_filter_is_or() {
        let filters = for_search("brand=Sony&brand=A%26B&condition=new&condition=used&attr.Color=black&attr.color=red").unwrap();
        assert_eq!(filters.brands, ["Sony", "A&B"]);
        assert_eq!(filters.conditions, [Condition::New, Condition::Used]);
        assert_eq!(filters.attributes, BTreeMap::from([("color".to_owned(), vec!["black".to_owned(), "red".to_owned()])]));
        assert_eq!(for_search("available=true&available=false").unwrap().available, None);
        assert_eq!(for_search("available=false&available=false").unwrap().available, Some(false));
    }

    #[test]
    fn prices_are_compared_in_one_currency() {
        let filters = for_search("price_min=49.90&price_min=20&price_max=100").unwrap();
        assert_eq!(filters.price, Some(PriceRange { min: Some(Decimal::from(20)), max: Some(Decimal::from(100)) }));
        assert_eq!(filters.currencies, [Currency::DEFAULT]);
        assert_eq!(for_search("price_max=1&currency=EUR").unwrap().currencies, ["EUR".parse().unwrap()]);
        assert_eq!(for_search("brand=x").unwrap().currencies, []);
    }

    #[test]
    fn what_is_typed_is_checked() {
        for bad in [
            "seller_id=1",
            "seller_id=' or 1=1--",
            "status=activ",
            "status=active'",
            "condition=NEW",
            "condition={\"match_all\":{}}",
            "price_min=-1",
            "price_min=1e3",
            "price_min=1,5",
            "price_min=",
            "price_max=1000000000000000",
            "price_max=NaN",
            "currency=rsd",
            "currency=XXX",
            "currency=RSD;drop",
            "available=yes",
            "available=1",
            "available=",
            "brand=%00",
            "attr.=x",
            "attr.color=%00",
            "brand=%ff",
        ] {
            assert!(for_search(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_free_text_is_taken_as_it_is() {
        let filters = for_search("brand=' or 1=1--&tag={\"match_all\":{}}&category=*&attr.a.b*=?").unwrap();
        assert_eq!(filters.brands, ["' or 1=1--"]);
        assert_eq!(filters.attributes.keys().collect::<Vec<_>>(), ["a.b*"]);
    }

    #[test]
    fn nobody_asks_for_a_thousand_terms() {
        let many = |name: &str| vec![format!("{name}=x"); VALUES_MAX + 1].join("&");
        assert!(for_search(&many("brand")).is_err());
        assert!(for_search(&many("attr.a")).is_err());
        let names: Vec<_> = (0..=ATTRIBUTES_MAX).map(|n| format!("attr.{n}=x")).collect();
        assert!(for_search(&names.join("&")).is_err());
    }

    #[test]
    fn a_list_leaves_what_only_a_search_knows() {
        let mut parameters = Parameters::parse("brand=Sony&attr.color=red&near=1,2&limit=5").unwrap();
        Filters::take_for_list(&mut parameters).unwrap();
        let left: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["attr.color", "near", "limit"]);
    }

    #[test]
    fn a_route_sorts_by_what_it_can() {
        assert_eq!(Sort::read(None, Sort::OF_LISTS).unwrap(), Sort::Newest);
        assert_eq!(Sort::read(Some("distance"), Sort::OF_SEARCHES).unwrap(), Sort::Distance);
        for bad in ["distance", "-title", "", "price desc", "created_at"] {
            assert!(Sort::read(Some(bad), Sort::OF_LISTS).is_err(), "{bad}");
        }
    }
}
