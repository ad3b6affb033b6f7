//! From which price to which.

use events::money::parse_amount;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// An amount in a query: a plain decimal such as `49.90`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Amount(pub Decimal);

impl TryFrom<String> for Amount {
    type Error = events::money::MoneyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_amount(&text).map(Self)
    }
}

/// Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PriceRange {
    pub min: Option<Decimal>,
    pub max: Option<Decimal>,
}

impl PriceRange {
    /// The range in which a price satisfies any of the lower and any of the upper ends; `None` without any end.
    pub(super) fn of_any(mins: &[Amount], maxs: &[Amount]) -> Option<Self> {
        let (min, max) = (mins.iter().min().map(|amount| amount.0), maxs.iter().max().map(|amount| amount.0));
        (min.is_some() || max.is_some()).then_some(Self { min, max })
    }
}
