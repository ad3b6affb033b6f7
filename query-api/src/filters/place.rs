//! Filters by place: around a point, or inside a box.

use std::cmp::Ordering;

use events::listing::{Point, degrees};
use serde::Serialize;

/// Half of the earth's circumference: every place is within it.
const RADIUS_MAX_METRES: f64 = 20_040_000.0;

/// Which places are wanted; all conditions hold at once. Listings without a place match none of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Places {
    pub near: Option<Near>,
    /// In any of these; empty means anywhere.
    pub areas: Vec<Area>,
}

/// Around a point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Near {
    pub point: Point,
    /// `None` means any listing that has a place.
    pub radius_metres: Option<f64>,
}

/// A box of degrees, edges included. Its west may be east of its east: it then crosses the date line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "[f64; 4]")]
pub struct Area {
    pub west: f64,
    pub south: f64,
    pub east: f64,
    pub north: f64,
}

/// A distance above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Radius {
    pub metres: f64,
}

/// Why numbers are no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("must have longitudes from -180 to 180 and latitudes from -90 to 90")]
    OutOfRange,
    #[error("must have its minLat below its maxLat")]
    NoHeight,
    #[error("must have two longitudes that differ")]
    NoWidth,
    #[error("must be above zero and at most 20040km")]
    Radius,
}

/// A point, rounded as stored points are.
pub fn point(lat: f64, lon: f64) -> Result<Point, PlaceError> {
    let (lat, lon) = (degrees(lat), degrees(lon));
    if is_latitude(lat) && is_longitude(lon) { Ok(Point { lat, lon }) } else { Err(PlaceError::OutOfRange) }
}

impl Area {
    pub fn new(corners: [f64; 4]) -> Result<Self, PlaceError> {
        let [west, south, east, north] = corners.map(degrees);
        if ![west, east].into_iter().all(is_longitude) || ![south, north].into_iter().all(is_latitude) {
            return Err(PlaceError::OutOfRange);
        }
        if south >= north {
            return Err(PlaceError::NoHeight);
        }
        if west.partial_cmp(&east) == Some(Ordering::Equal) {
            return Err(PlaceError::NoWidth);
        }
        Ok(Self { west, south, east, north })
    }
}

impl From<Area> for [f64; 4] {
    fn from(Area { west, south, east, north }: Area) -> Self {
        [west, south, east, north]
    }
}

impl Radius {
    pub fn new(metres: f64) -> Result<Self, PlaceError> {
        if metres > 0.0 && metres <= RADIUS_MAX_METRES { Ok(Self { metres }) } else { Err(PlaceError::Radius) }
    }
}

fn is_latitude(degrees: f64) -> bool {
    (-90.0..=90.0).contains(&degrees)
}

fn is_longitude(degrees: f64) -> bool {
    (-180.0..=180.0).contains(&degrees)
}
