//! Parsers and types of single values.

use std::str::FromStr as _;
use std::time::Duration;
use url::Url;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Switch {
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

const MILLISECOND: u64 = 1;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The name of an alias of OpenSearch, short enough for a suffix such as `-1`. An empty name, `*` or `a,b` would be several indices.
pub fn index_alias(text: &str) -> Result<String, String> {
    const LONGEST: usize = 240;
    let is_allowed = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || "-_.".contains(character);
    let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if begins_well && text.len() <= LONGEST && text.chars().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no name of an index: small letters and digits, then also - _ and ., at most {LONGEST}"))
}

/// A duration with its unit: `250ms`, `15s`, `2m`, `12h`, `90d`. A number without a unit is refused as ambiguous.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration; write 250ms, 15s, 2m, 12h or 90d");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(refuse)
}

/// The default log filter.
pub(super) const DEFAULT_FILTER: &str = "info";

/// Checks a log filter, such as `info` or `warn,projector=debug`.
pub fn log_filter(text: &str) -> Result<String, String> {
    // An empty variable counts as not set. To the parser it would mean everything.
    let text = if text.trim().is_empty() { DEFAULT_FILTER } else { text };
    Targets::from_str(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Checks the address of a trace collector. Only plain HTTP is supported; a local collector can add TLS.
pub(super) fn collector(text: &str) -> Result<String, String> {
    let refuse = |why: &dyn std::fmt::Display| format!("{why}; write http://host:4317");
    if !text.is_empty() {
        let url = Url::parse(text).map_err(|error| refuse(&error))?;
        if url.scheme() != "http" {
            return Err(refuse(&"only http is spoken to a collector"));
        }
    }
    Ok(text.to_owned())
}

/// An empty variable counts as not set.
#[must_use]
pub fn filled(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_one_name() {
        for good in ["listings", "listings-blue", "7.x_y"] {
            assert_eq!(index_alias(good).as_deref(), Ok(good));
        }
        for bad in ["", "*", "a,b", "A", "_x", "-x", ".x", "../_cat", "a b", "č", &"a".repeat(241)] {
            assert!(index_alias(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("12h"), Ok(Duration::from_hours(12)));
        assert_eq!(duration("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "15", "s", "1.5s", "-1s", "15 s", "15sec", "1m30s", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_collector_is_spoken_to_in_plain_http() {
        for right in ["", "http://127.0.0.1:4317", "http://collector:4317/"] {
            assert!(collector(right).is_ok(), "{right:?}");
        }
        for wrong in ["collector", "127.0.0.1:4317", "https://collector:4317", "grpc://collector"] {
            assert!(collector(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_log_filter_is_checked_at_the_start() {
        assert!(log_filter("info,access=off").is_ok());
        assert_eq!(log_filter("").unwrap(), "info");
        assert!(log_filter("warn,projector::consumer=debug").is_ok());
        for wrong in ["info,access=loudly", "info,[span{field}]=debug=x"] {
            assert!(log_filter(wrong).is_err(), "{wrong:?}");
        }
    }
}
