//! Validators of values that clients send. They report all faults instead of stopping at the first.
//!
//! A validator adds what is wrong to [`Faults`] and returns the value as it came. A command is built only if there are no faults, so
//! a value with a fault is never used.

use events::{Currency, Money};
use serde::Deserialize;
use service::problem::{FAULTS_LIMIT, Fault};
use utoipa::ToSchema;
use uuid::Uuid;

pub const REQUIRED: &str = "is required";

/// The faults of a document that were found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault. One more than [`FAULTS_LIMIT`] is kept, which shows that there are more.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() <= FAULTS_LIMIT {
            self.0.push(Fault::new(pointer, detail));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

impl From<Vec<Fault>> for Faults {
    fn from(found: Vec<Fault>) -> Self {
        Self(found)
    }
}

/// A text that must be there, with 1 to `most` characters.
pub fn required(faults: &mut Faults, pointer: &str, value: Option<String>, most: usize) -> String {
    let Some(value) = value else {
        faults.add(pointer, REQUIRED);
        return String::new();
    };
    text(faults, pointer, &value, 1, most);
    value
}

/// A text that may be absent, else has 1 to `most` characters.
pub fn optional(faults: &mut Faults, pointer: &str, value: Option<String>, most: usize) -> Option<String> {
    let value = value?;
    text(faults, pointer, &value, 1, most);
    Some(value)
}

/// The length of a text in characters, and the characters that it may have.
pub fn text(faults: &mut Faults, pointer: &str, value: &str, least: usize, most: usize) {
    if value.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\t') {
        faults.add(pointer, "must have no control characters but newline and tab");
    }
    let length = value.chars().count();
    if length > most {
        faults.add(pointer, format!("must have at most {most} characters"));
    } else if length < least {
        faults.add(pointer, "must not be empty");
    }
}

/// The number of items of a list.
pub fn count(faults: &mut Faults, pointer: &str, items: usize, most: usize) {
    if items > most {
        faults.add(pointer, format!("must have at most {most} items"));
    }
}

pub fn uuid(faults: &mut Faults, pointer: &str, value: Option<&str>) -> Option<Uuid> {
    let id = Uuid::try_parse(value?).ok();
    if id.is_none() {
        faults.add(pointer, "must be a UUID");
    }
    id
}

/// A name of a fixed set; the default if it is absent.
pub fn one_of<T: Copy>(
    faults: &mut Faults,
    pointer: &str,
    name: Option<&str>,
    default: T,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> T {
    let Some(name) = name else { return default };
    all.iter().copied().find(|value| name_of(*value) == name).unwrap_or_else(|| {
        let names: Vec<&str> = all.iter().copied().map(name_of).collect();
        faults.add(pointer, format!("must be one of {}", names.join(", ")));
        default
    })
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
#[schema(as = Price)]
pub struct PriceDraft {
    /// A decimal with at most the currency's own digits, less than 10^12.
    #[schema(required, nullable = false, pattern = r"^\d{1,12}(\.\d{1,3})?$", example = "129.99")]
    pub amount: Option<String>,
    /// ISO 4217; `RSD` unless given.
    #[schema(pattern = "^[A-Z]{3}$", example = "RSD")]
    pub currency: Option<String>,
}

/// An amount of money in its currency; `RSD` unless it names one.
pub fn price(faults: &mut Faults, pointer: &str, price: PriceDraft) -> Option<Money> {
    let currency = match price.currency.as_deref().map_or(Ok(Currency::DEFAULT), str::parse) {
        Ok(currency) => Some(currency),
        Err(error) => {
            faults.add(format!("{pointer}/currency"), error.to_string());
            None
        }
    };
    let Some(amount) = price.amount else {
        faults.add(if price.currency.is_some() { format!("{pointer}/amount") } else { pointer.to_owned() }, REQUIRED);
        return None;
    };
    match Money::parse(&amount, currency?) {
        Ok(money) => Some(money),
        Err(error) => {
            faults.add(format!("{pointer}/amount"), error.to_string());
            None
        }
    }
}
