//! A moment, to the microsecond.

use std::fmt;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// A moment in UTC, shown as RFC 3339 with exactly six digits.
///
/// `PostgreSQL` keeps microseconds and chrono nanoseconds; a time that was not cut would differ from its own round trip, and
/// with it the bytes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T09:30:00.000000Z")]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The moment as chrono has it.
    #[must_use]
    pub fn get(self) -> DateTime<Utc> {
        self.0
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment.trunc_subsecs(6))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(moment: Timestamp) -> Self {
        moment.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc).into())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DateTime::<Utc>::deserialize(deserializer).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_cut_and_six_digits_shown() {
        let moment: Timestamp = "2026-11-21T10:30:00.771318929+01:00".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-11-21T09:30:00.771318Z");
        assert_eq!(serde_json::to_string(&moment).unwrap(), "\"2026-11-21T09:30:00.771318Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>("\"2026-11-21T09:30:00.771318Z\"").unwrap(), moment);
    }

    #[test]
    fn a_whole_second_keeps_its_digits() {
        let moment: Timestamp = "2026-11-21T09:30:00Z".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-11-21T09:30:00.000000Z");
    }
}
