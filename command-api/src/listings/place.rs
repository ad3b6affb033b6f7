//! Validators of where the goods are and how they look: location and images.

use std::collections::BTreeSet;

use events::listing::{self, Location, Point};
use url::Url;

use super::draft::{IMAGES, ImageDraft, LocationDraft};
use crate::validation::{Faults, REQUIRED, count, optional, required};

// Limits in characters.
const PLACE: usize = 200;
const IMAGE_URL: usize = 2_048;
const ALT: usize = 300;

/// `None` for a location without any content.
pub fn location(faults: &mut Faults, location: LocationDraft) -> Option<Location> {
    let is_code = |code: &str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if location.country.as_deref().is_some_and(|code| !is_code(code)) {
        faults.add("/location/country", "must be two capital letters (ISO 3166-1) such as RS");
    }
    let point = location.point.map(|point| Point {
        lat: degrees(faults, "/location/point/lat", point.lat, 90.0),
        lon: degrees(faults, "/location/point/lon", point.lon, 180.0),
    });
    let location = Location {
        country: location.country,
        city: optional(faults, "/location/city", location.city, PLACE),
        address: optional(faults, "/location/address", location.address, PLACE),
        point,
    };
    let empty = Location { country: None, city: None, address: None, point: None };
    (location != empty).then_some(location)
}

fn degrees(faults: &mut Faults, pointer: &str, degrees: Option<f64>, limit: f64) -> f64 {
    let Some(degrees) = degrees else {
        faults.add(pointer, REQUIRED);
        return 0.0;
    };
    if !(-limit..=limit).contains(&degrees) {
        faults.add(pointer, format!("must be from -{limit} to {limit}"));
    }
    listing::degrees(degrees)
}

/// An image as its seller gives it. It is never fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLink {
    pub url: String,
    pub alt: Option<String>,
}

pub fn images(faults: &mut Faults, images: Vec<ImageDraft>) -> Vec<ImageLink> {
    count(faults, "/images", images.len(), IMAGES);
    let mut seen = BTreeSet::new();
    let read = |(at, image): (usize, ImageDraft)| {
        let pointer = format!("/images/{at}/url");
        let url = required(faults, &pointer, image.url, IMAGE_URL);
        if !url.is_empty() && !is_web_address(&url) {
            faults.add(&pointer, "must be an absolute http or https URL");
        }
        if !seen.insert(url.clone()) {
            faults.add(&pointer, "is given twice");
        }
        ImageLink { url, alt: optional(faults, &format!("/images/{at}/alt"), image.alt, ALT) }
    };
    images.into_iter().enumerate().map(read).collect()
}

fn is_web_address(url: &str) -> bool {
    // The parser ignores spaces and tabs, which would be stored all the same.
    let clean = !url.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    // It also accepts `http:a` and `http:///a`, which a browser reads in another way.
    let names_host = url.split_once("://").is_some_and(|(_, rest)| !rest.starts_with(['/', '\\']));
    clean && names_host && Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
