//! Query parameters: reads them as typed questions. What is unknown, repeated without leave, or not of its type is malformed.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use events::listing::{Condition, Point, Status};
use events::money::{MoneyError, parse_amount};
use events::{Currency, UserId};
use http::request::Parts;
use rust_decimal::Decimal;
use serde::Deserialize;
use service::http::Parameters;
use service::problem::Problem;
use utoipa::{IntoParams, ToSchema};

use crate::filters::{Area, Filters, Near, PlaceError, Places, PriceRange, Radius, attribute_filters, point};
use crate::list_listings::ListQuestion;
use crate::question::{Paging, Sort};
use crate::search::{SearchQuestion, SearchRequest};
use crate::visibility::Viewer;

/// Attribute filters are `attr.<name>=value`.
const ATTRIBUTE_PREFIX: &str = "attr.";
const METRES_PER_KM: f64 = 1000.0;

/// For routes without parameters: any parameter is refused.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct NoParameters {}

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            // The usual case costs nothing.
            None | Some("") => Ok(Self {}),
            Some(query) => Parameters::parse(query)?.read(),
        }
    }
}

/// The filters of lists and searches. Each may come several times.
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

/// The filters of searches by place. Listings without a place match none of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlaceParameters {
    /// A point as `lat,lon`: only listings with a place, within `radius` of it if that is given.
    #[param(value_type = Option<String>, example = "45.2671,19.8335")]
    near: Option<Coordinates>,
    /// How far from `near`, in `km` or `m`.
    #[param(value_type = Option<String>, example = "10km")]
    radius: Option<Length>,
    /// A box as `minLon,minLat,maxLon,maxLat`. One whose west is east of its east crosses the date line.
    #[serde(default)]
    #[param(value_type = Vec<String>, example = "19.5,45.1,20.0,45.4")]
    bbox: Vec<Box4>,
}

/// The parameters of lists, besides filters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// `-created_at` (default), `price`, `-price` or `title`. By price: of listings in `currency`, by default RSD.
    sort: Option<String>,
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// Continues where a page ended.
    cursor: Option<String>,
}

/// The parameters of searches, besides filters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParameters {
    /// Words to search for. Without words all listings match, newest first.
    #[param(example = "noise cancelling headphones", max_length = 1000)]
    q: Option<String>,
    /// `relevance` (default), `price`, `-price`, `-created_at` or `distance`, which requires `near`.
    sort: Option<String>,
    /// Counts by `brand`, `category`, `price`, `condition` or `attr.<name>`: a list.
    #[serde(default)]
    #[param(example = "brand,price,attr.color")]
    facets: Vec<String>,
    /// `1` to highlight the matching words.
    #[param(inline)]
    highlight: Option<Flag>,
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// Continues where a page ended.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
enum Flag {
    #[serde(rename = "1", alias = "true")]
    On,
    #[serde(rename = "0", alias = "false")]
    Off,
}

/// Reads the question of a list.
pub fn list_question(mut parameters: Parameters, viewer: Viewer) -> Result<ListQuestion, Problem> {
    let filters = FilterParameters::take(&mut parameters)?;
    let ListParameters { sort, limit, cursor } = parameters.read()?;
    let sort = sort.map(|name| Sort::from_name(&name, Sort::OF_LISTS)).transpose()?;
    Ok(ListQuestion::new(viewer, filters, &Paging { sort, limit, cursor })?)
}

/// Reads the question of a search.
pub fn search_question(mut parameters: Parameters) -> Result<SearchQuestion, Problem> {
    let attributes = attribute_filters(parameters.take_prefixed(ATTRIBUTE_PREFIX))?;
    let places = PlaceParameters::take(&mut parameters)?;
    let filters = Filters { attributes, places, ..FilterParameters::take(&mut parameters)? };
    let SearchParameters { q, sort, facets, highlight, limit, cursor } = parameters.read()?;
    let sort = sort.map(|name| Sort::from_name(&name, Sort::OF_SEARCHES)).transpose()?;
    Ok(SearchQuestion::new(SearchRequest {
        words: q.unwrap_or_default(),
        filters,
        facets,
        highlight: matches!(highlight, Some(Flag::On)),
        paging: Paging { sort, limit, cursor },
    })?)
}

impl FilterParameters {
    const NAMES: [&str; 10] =
        ["seller_id", "status", "category", "brand", "condition", "tag", "price_min", "price_max", "currency", "available"];

    /// Takes the filters out of the parameters.
    fn take(parameters: &mut Parameters) -> Result<Filters, Problem> {
        let Self { seller_id, status, category, brand, condition, tag, price_min, price_max, currency, available } =
            parameters.take_named(&Self::NAMES).read()?;
        let amounts = |amounts: Vec<Amount>| amounts.into_iter().map(|Amount(amount)| amount);
        Ok(Filters {
            sellers: seller_id,
            statuses: status,
            categories: category,
            brands: brand,
            conditions: condition,
            tags: tag,
            price: PriceRange::of_any(amounts(price_min), amounts(price_max)),
            currencies: currency,
            // Both values together are no restriction.
            available: available.first().copied().filter(|first| available.iter().all(|other| other == first)),
            ..Filters::default()
        })
    }
}

impl PlaceParameters {
    const NAMES: [&str; 3] = ["near", "radius", "bbox"];

    fn take(parameters: &mut Parameters) -> Result<Places, Problem> {
        let Self { near, radius, bbox } = parameters.take_named(&Self::NAMES).read()?;
        if radius.is_some() && near.is_none() {
            return Err(Problem::malformed("The parameter radius requires near"));
        }
        let radius_metres = radius.map(|Length(radius)| radius.metres);
        let near = near.map(|Coordinates(point)| Near { point, radius_metres });
        Ok(Places { near, areas: bbox.into_iter().map(|Box4(area)| area).collect() })
    }
}

/// An amount: a plain decimal such as `49.90`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Amount(Decimal);

impl TryFrom<String> for Amount {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        parse_amount(&text).map(Self)
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Coordinates(Point);

impl TryFrom<String> for Coordinates {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "must be lat,lon in degrees, such as 45.2671,19.8335";
        let [lat, lon] = numbers(&text).ok_or(FORM)?;
        point(lat, lon).map(Self).map_err(|_| FORM)
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Box4(Area);

impl TryFrom<String> for Box4 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let corners = numbers(&text).ok_or("must be minLon,minLat,maxLon,maxLat in degrees, such as 19.5,45.1,20.0,45.4")?;
        Area::new(corners).map(Self).map_err(|error: PlaceError| error.to_string())
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Length(Radius);

impl TryFrom<String> for Length {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "must be a length in km or m above zero, such as 10km, at most 20040km";
        let (number, metres_each) = match text.strip_suffix("km") {
            Some(number) => (number, METRES_PER_KM),
            None => (text.strip_suffix('m').ok_or(FORM)?, 1.0),
        };
        Radius::new(decimal(number).ok_or(FORM)? * metres_each).map(Self).map_err(|_| FORM)
    }
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = text.split(',').map(decimal).collect();
    numbers?.try_into().ok()
}

/// Parses a plain decimal. Rust's own parser also accepts exponents and `inf`.
fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    plain.then(|| f64::from_str(text).ok()).flatten().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(query: &str) -> Result<Filters, Problem> {
        let mut parameters = Parameters::parse(query)?;
        let attributes = attribute_filters(parameters.take_prefixed(ATTRIBUTE_PREFIX))?;
        let places = PlaceParameters::take(&mut parameters)?;
        let filters = Filters { attributes, places, ..FilterParameters::take(&mut parameters)? };
        assert_eq!(parameters.iter().count(), 0, "left: {parameters:?}");
        Ok(filters.checked()?)
    }

    fn search(query: &str) -> Result<SearchQuestion, Problem> {
        search_question(Parameters::parse(query)?)
    }

    #[test]
    fn no_filter_is_everything() {
        assert_eq!(filters("").unwrap(), Filters::default());
    }

    #[test]
    fn a_repeated_filter_is_or() {
        let several = filters("brand=Sony&brand=A%26B&condition=new&condition=used&attr.Color=black&attr.color=red").unwrap();
        assert_eq!(several.brands, ["Sony", "A&B"]);
        assert_eq!(several.conditions, [Condition::New, Condition::Used]);
        assert_eq!(several.attributes["color"], ["black", "red"]);
        assert_eq!(filters("available=true&available=false").unwrap().available, None);
        assert_eq!(filters("available=false&available=false").unwrap().available, Some(false));
    }

    #[test]
    fn prices_are_compared_in_one_currency() {
        let priced = filters("price_min=49.90&price_min=20&price_max=100").unwrap();
        assert_eq!(priced.price, Some(PriceRange { min: Some(Decimal::from(20)), max: Some(Decimal::from(100)) }));
        assert_eq!(priced.currencies, [Currency::DEFAULT]);
        assert_eq!(filters("price_max=1&currency=EUR").unwrap().currencies, ["EUR".parse().unwrap()]);
        assert_eq!(filters("brand=x").unwrap().currencies, []);
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
            assert!(filters(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_free_text_is_taken_as_it_is() {
        let free = filters("brand=' or 1=1--&tag={\"match_all\":{}}&category=*&attr.a.b*=?").unwrap();
        assert_eq!(free.brands, ["' or 1=1--"]);
        assert_eq!(free.attributes.keys().collect::<Vec<_>>(), ["a.b*"]);
    }

    #[test]
    fn nobody_asks_for_a_thousand_terms() {
        let many = |name: &str, value: &str| vec![format!("{name}={value}"); 101].join("&");
        assert!(filters(&many("brand", "x")).is_err());
        assert!(filters(&many("attr.a", "x")).is_err());
        assert!(filters(&many("bbox", "1,2,3,4")).is_err());
        let names: Vec<_> = (0..=20).map(|n| format!("attr.{n}=x")).collect();
        assert!(filters(&names.join("&")).is_err());
    }

    #[test]
    fn a_list_knows_no_filters_of_searches() {
        let list = |query: &str| list_question(Parameters::parse(query)?, Viewer::Anyone);
        assert!(list("brand=Sony&limit=5&sort=title").is_ok());
        for bad in ["attr.color=red", "near=1,2", "q=x", "sort=distance", "sort=-title", "limit=0", "limit=101", "cursor=x"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(search("q=x&highlight=1&facets=brand,price&sort=-price&limit=100&near=1,2").is_ok());
        for bad in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=x",
            "limit=1&limit=2",
            "sort=title",
            "sort=",
            "sort=distance",
            "sort=_score",
            "facets=title",
            "highlight=yes",
            "q=a&q=b",
            "q=%00",
            "q=%ff",
            "cursor=x",
            "cursor=",
            "offset=1",
            "q=x&Q=y",
            "title=x",
            "query={}",
            "radius=1km",
        ] {
            assert!(search(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_a_point_with_a_radius_or_a_box() {
        let places = |query| filters(query).unwrap().places;
        let novi_sad = Point { lat: 45.2671, lon: 19.8335 };
        assert_eq!(
            places("near=45.2671,19.8335&radius=10km").near,
            Some(Near { point: novi_sad, radius_metres: Some(10_000.0) })
        );
        assert_eq!(places("near=45.2671,%2019.8335&radius=2.5m").near.unwrap().radius_metres, Some(2.5));
        assert_eq!(places("near=45.2671,19.8335").near.unwrap().radius_metres, None);
        let closest = places("near=0.0000000000001,-19.83350000000001").near.unwrap().point;
        assert_eq!(closest, Point { lat: 0.0, lon: -19.8335 });
        let over_the_date_line = Area { west: 170.0, south: -10.0, east: -170.0, north: 10.5 };
        assert_eq!(places("bbox=170,-10,-170,10.5").areas, [over_the_date_line]);
    }

    #[test]
    fn no_place_is_refused() {
        for bad in [
            "near=",
            "near=1",
            "near=1,2,3",
            "near=91,0",
            "near=0,181",
            "near=NaN,0",
            "near=inf,0",
            "near=1e1,0",
            "near=a,b",
            "near=1,2&near=3,4",
            "near=1;2",
            "radius=10km",
            "near=1,2&radius=10",
            "near=1,2&radius=0km",
            "near=1,2&radius=-1km",
            "near=1,2&radius=10mi",
            "near=1,2&radius=50000km",
            "near=1,2&radius=km",
            "bbox=1,2,3",
            "bbox=0,10,1,5",
            "bbox=0,2,1,2",
            "bbox=1,2,1,3",
            "bbox=0,2,0.0000000000001,3",
            "bbox=0,0,181,1",
            "bbox=0,0,1,1'",
            "bbox={}",
        ] {
            assert!(filters(bad).is_err(), "{bad}");
        }
    }
}
