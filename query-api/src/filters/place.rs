//! Where: around a point, or inside of a box.

use std::cmp::Ordering;
use std::str::FromStr;

use events::listing::{Point, degrees};
use serde::{Deserialize, Serialize};
use service::problem::Problem;
use utoipa::IntoParams;

use super::limited;

/// Half of the way around the earth: every place is within it.
const FARTHEST_KM: f64 = 20_040.0;
const METRES_PER_KM: f64 = 1000.0;

/// The filters by place. Listings without one match none of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlaceParameters {
    /// A point as `lat,lon`: only listings with a place, within `radius` of it if that is given.
    #[param(value_type = Option<String>, example = "45.2671,19.8335")]
    near: Option<Coordinates>,
    /// How far from `near`, in `km` or `m`.
    #[param(value_type = Option<String>, example = "10km")]
    radius: Option<Radius>,
    /// A box as `minLon,minLat,maxLon,maxLat`. One whose west is east of its east crosses the date line.
    #[serde(default)]
    #[param(value_type = Vec<String>, example = "19.5,45.1,20.0,45.4")]
    bbox: Vec<Area>,
}

/// Places that are wanted; all conditions hold at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Places {
    pub near: Option<Near>,
    /// In any of these; empty is anywhere.
    pub areas: Vec<Area>,
}

/// Around a point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Near {
    pub point: Point,
    /// `None`: however far, but somewhere.
    pub radius_metres: Option<f64>,
}

/// A box of degrees, edges included, and not without any inside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "[f64; 4]")]
pub struct Area {
    pub west: f64,
    pub south: f64,
    pub east: f64,
    pub north: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Coordinates(Point);

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Radius {
    metres: f64,
}

impl PlaceParameters {
    pub(super) const NAMES: [&str; 3] = ["near", "radius", "bbox"];

    pub(super) fn places(self) -> Result<Places, Problem> {
        if self.radius.is_some() && self.near.is_none() {
            return Err(Problem::malformed("The parameter radius goes with near"));
        }
        let near = self.near.map(|point| Near { point: point.0, radius_metres: self.radius.map(|radius| radius.metres) });
        Ok(Places { near, areas: limited("bbox", self.bbox)? })
    }
}

impl TryFrom<String> for Coordinates {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "must be lat,lon in degrees, such as 45.2671,19.8335";
        let [lat, lon] = numbers(&text).ok_or(FORM)?.map(degrees);
        if is_latitude(lat) && is_longitude(lon) { Ok(Self(Point { lat, lon })) } else { Err(FORM) }
    }
}

impl TryFrom<String> for Area {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let [west, south, east, north] =
            numbers(&text).ok_or("must be minLon,minLat,maxLon,maxLat in degrees, such as 19.5,45.1,20.0,45.4")?.map(degrees);
        if ![west, east].into_iter().all(is_longitude) || ![south, north].into_iter().all(is_latitude) {
            return Err("must have longitudes from -180 to 180 and latitudes from -90 to 90");
        }
        if south >= north {
            return Err("must have its minLat below its maxLat");
        }
        if west.partial_cmp(&east) == Some(Ordering::Equal) {
            return Err("must have two longitudes that differ");
        }
        Ok(Self { west, south, east, north })
    }
}

impl From<Area> for [f64; 4] {
    fn from(Area { west, south, east, north }: Area) -> Self {
        [west, south, east, north]
    }
}

impl TryFrom<String> for Radius {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "must be a length in km or m above zero, such as 10km, at most 20040km";
        let (number, metres_each) = match text.strip_suffix("km") {
            Some(number) => (number, METRES_PER_KM),
            None => (text.strip_suffix('m').ok_or(FORM)?, 1.0),
        };
        let metres = decimal(number).ok_or(FORM)? * metres_each;
        if metres > 0.0 && metres <= FARTHEST_KM * METRES_PER_KM { Ok(Self { metres }) } else { Err(FORM) }
    }
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = text.split(',').map(decimal).collect();
    numbers?.try_into().ok()
}

/// Digits with at most one point, and a sign. Not all that Rust reads as a float: no exponents, no `inf`.
fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    plain.then(|| f64::from_str(text).ok()).flatten().filter(|number| number.is_finite())
}

fn is_latitude(degrees: f64) -> bool {
    (-90.0..=90.0).contains(&degrees)
}

fn is_longitude(degrees: f64) -> bool {
    (-180.0..=180.0).contains(&degrees)
}

#[cfg(test)]
mod tests {
    use service::http::Parameters;

    use super::*;

    fn places(query: &str) -> Result<Places, Problem> {
        Parameters::parse(query)?.read::<PlaceParameters>()?.places()
    }

    #[test]
    fn a_place_is_a_point_with_a_radius_or_a_box() {
        let novi_sad = Point { lat: 45.2671, lon: 19.8335 };
        assert_eq!(
            places("near=45.2671,19.8335&radius=10km").unwrap().near,
            Some(Near { point: novi_sad, radius_metres: Some(10_000.0) })
        );
        assert_eq!(places("near=45.2671,%2019.8335&radius=2.5m").unwrap().near.unwrap().radius_metres, Some(2.5));
        assert_eq!(places("near=45.2671,19.8335").unwrap().near.unwrap().radius_metres, None);
        let closest = places("near=0.0000000000001,-19.83350000000001").unwrap().near.unwrap().point;
        assert_eq!(closest, Point { lat: 0.0, lon: -19.8335 });
        let over_the_date_line = Area { west: 170.0, south: -10.0, east: -170.0, north: 10.5 };
        assert_eq!(places("bbox=170,-10,-170,10.5").unwrap().areas, [over_the_date_line]);
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
            assert!(places(bad).is_err(), "{bad}");
        }
    }
}
