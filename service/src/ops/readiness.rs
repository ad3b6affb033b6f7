//! What a program needs, and whether it has it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

/// Less than the operations port waits for the whole report.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_millis(1_500);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    name: Cow<'static, str>,
    needed: bool,
    failure: Option<String>,
}

impl Check {
    #[must_use]
    pub fn passed(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), needed: true, failure: None }
    }

    pub fn failed(name: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self { name: name.into(), needed: true, failure: Some(why.into()) }
    }

    /// From whether a store answers in time. Its errors may show addresses and users; who asks whether we are ready learns only
    /// that it is away.
    pub async fn of_store<T, E>(name: &'static str, ping: impl Future<Output = Result<T, E>>) -> Self {
        match timeout(STORE_ANSWERS_WITHIN, ping).await {
            Ok(Ok(_)) => Self::passed(name),
            Ok(Err(_)) => Self::failed(name, "does not answer"),
            Err(_) => Self::failed(name, "does not answer in time"),
        }
    }

    /// Without it the program still does its work, only not as well: failing makes it degraded, not unready.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { needed: false, ..self }
    }

    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// All checks, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub ready: bool,
    checks: Vec<Check>,
}

impl Report {
    /// Ready if every needed check passed.
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        Self { ready: checks.iter().all(|check| check.is_passed() || !check.needed), checks }
    }

    /// For programs that can do with one thing or another: they say themselves whether it is enough.
    #[must_use]
    pub fn when(ready: bool, checks: Vec<Check>) -> Self {
        Self { ready, checks }
    }

    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.ready && self.checks.iter().any(|check| !check.is_passed())
    }

    pub(super) fn checks(&self) -> Value {
        let told = self.checks.iter().map(|check| {
            let mut told = Map::new();
            told.insert("status".to_owned(), json!(if check.is_passed() { "passed" } else { "failed" }));
            told.insert("needed".to_owned(), json!(check.needed));
            if let Some(failure) = &check.failure {
                told.insert("detail".to_owned(), json!(failure));
            }
            (check.name.to_string(), Value::Object(told))
        });
        Value::Object(told.collect())
    }
}
