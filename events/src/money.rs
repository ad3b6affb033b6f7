//! Money: a decimal amount in an ISO 4217 currency. Never a float.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Upper bound of amounts, exclusive: 10^12. Every store holds amounts below it exactly.
pub const AMOUNT_LIMIT: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);

/// Active currencies of ISO 4217 whose minor unit has two digits.
const TWO_DIGITS: &[&str] = &[
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BGN", "BMD", "BND", "BOB", "BRL", "BSD",
    "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN",
    "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR",
    "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK",
    "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK",
    "PHP", "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP",
    "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "UYU", "UZS", "VED", "VES",
    "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
];
/// Active currencies of ISO 4217 without a minor unit.
const NO_DIGITS: &[&str] =
    &["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"];
/// Active currencies of ISO 4217 whose minor unit has three digits.
const THREE_DIGITS: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// An active currency of ISO 4217, such as `RSD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "RSD")]
pub struct Currency(&'static str);

impl Currency {
    /// The currency of a price that names none.
    pub const DEFAULT: Self = Self("RSD");

    /// The three letters.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0
    }

    /// How many digits an amount may have after the point.
    #[must_use]
    pub fn digits(self) -> u32 {
        if NO_DIGITS.contains(&self.0) {
            0
        } else if THREE_DIGITS.contains(&self.0) {
            3
        } else {
            2
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        let known = |table: &[&'static str]| table.iter().find(|known| **known == code).copied();
        known(TWO_DIGITS).or_else(|| known(NO_DIGITS)).or_else(|| known(THREE_DIGITS)).map(Self).ok_or(MoneyError::Currency)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

/// An amount of money. The amount keeps the digits it was written with: `"100"` stays `"100"`, and equals `"100.00"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "MoneyOnTheWire")]
pub struct Money {
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String, pattern = r"^\d{1,12}(\.\d{1,3})?$", example = "129.99")]
    amount: Decimal,
    currency: Currency,
}

#[derive(Deserialize)]
struct MoneyOnTheWire {
    amount: String,
    currency: Currency,
}

impl TryFrom<MoneyOnTheWire> for Money {
    type Error = MoneyError;

    fn try_from(wire: MoneyOnTheWire) -> Result<Self, Self::Error> {
        Self::parse(&wire.amount, wire.currency)
    }
}

impl Money {
    /// Checks that the amount fits its currency.
    pub fn new(amount: Decimal, currency: Currency) -> Result<Self, MoneyError> {
        if amount.is_sign_negative() && !amount.is_zero() {
            Err(MoneyError::Negative)
        } else if amount >= AMOUNT_LIMIT {
            Err(MoneyError::TooLarge)
        } else if amount.scale() > currency.digits() {
            Err(MoneyError::Digits { currency, digits: currency.digits() })
        } else {
            Ok(Self { amount: amount.abs(), currency })
        }
    }

    /// Reads an amount as clients write it: digits, and a point with more digits. No sign, no exponent, no spaces.
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        Self::new(parse_amount(amount)?, currency)
    }

    /// How much.
    #[must_use]
    pub fn amount(self) -> Decimal {
        self.amount
    }

    /// Of what.
    #[must_use]
    pub fn currency(self) -> Currency {
        self.currency
    }
}

/// Reads a plain decimal, as in `price_min=49.90`.
pub fn parse_amount(text: &str) -> Result<Decimal, MoneyError> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
        return Err(MoneyError::NotADecimal);
    }
    if whole.trim_start_matches('0').len() > 12 {
        return Err(MoneyError::TooLarge);
    }
    Decimal::from_str_exact(text).map_err(|_| MoneyError::NotADecimal)
}

/// Why something is no amount of money. The text is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not an active ISO 4217 code.
    #[error("is not an ISO 4217 currency code such as RSD")]
    Currency,
    /// Not digits with at most one point.
    #[error("must be a decimal such as \"129.99\"")]
    NotADecimal,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// 10^12 or more.
    #[error("must be less than 1000000000000")]
    TooLarge,
    /// More digits than the currency has.
    #[error("must have at most {digits} digits after the point in {currency}")]
    Digits {
        /// Whose digits were counted.
        currency: Currency,
        /// How many it has.
        digits: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsd(amount: &str) -> Result<Money, MoneyError> {
        Money::parse(amount, Currency::DEFAULT)
    }

    #[test]
    fn the_limit_is_ten_to_the_twelfth() {
        assert_eq!(AMOUNT_LIMIT, Decimal::from(1_000_000_000_000_u64));
        assert!(rsd("999999999999.99").is_ok());
        assert_eq!(rsd("1000000000000"), Err(MoneyError::TooLarge));
    }

    #[test]
    fn an_amount_keeps_its_digits_and_compares_by_value() {
        assert_eq!(serde_json::to_string(&rsd("100.00").unwrap()).unwrap(), r#"{"amount":"100.00","currency":"RSD"}"#);
        assert_eq!(serde_json::to_string(&rsd("100").unwrap()).unwrap(), r#"{"amount":"100","currency":"RSD"}"#);
        assert_eq!(rsd("100"), rsd("100.00"));
    }

    #[test]
    fn digits_follow_the_currency() {
        assert_eq!(rsd("1.999"), Err(MoneyError::Digits { currency: Currency::DEFAULT, digits: 2 }));
        assert!(Money::parse("1.5", "JPY".parse().unwrap()).is_err());
        assert!(Money::parse("1.999", "KWD".parse().unwrap()).is_ok());
        assert_eq!("rsd".parse::<Currency>(), Err(MoneyError::Currency));
    }

    #[test]
    fn only_plain_decimals_are_amounts() {
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,0", " 1", "1_000", "NaN", "١"] {
            assert_eq!(rsd(bad), Err(MoneyError::NotADecimal), "{bad:?}");
        }
        assert_eq!(rsd(&"9".repeat(400)), Err(MoneyError::TooLarge));
        assert_eq!(rsd(&format!("1.{}", "9".repeat(400))), Err(MoneyError::NotADecimal));
    }

    #[test]
    fn floats_are_refused_on_the_wire() {
        assert!(serde_json::from_str::<Money>(r#"{"amount":129.99,"currency":"RSD"}"#).is_err());
    }

    #[test]
    fn no_currency_is_listed_twice() {
        let mut all = [TWO_DIGITS, NO_DIGITS, THREE_DIGITS].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
