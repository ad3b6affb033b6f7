//! The readiness report: one check for each dependency.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

/// Timeout of the check of one store. Less than the timeout of the whole report.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_millis(1_500);

/// The result of checking one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    name: &'static str,
    needed: bool,
    failure: Option<String>,
}

impl Check {
    #[must_use]
    pub fn passed(name: &'static str) -> Self {
        Self { name, needed: true, failure: None }
    }

    pub fn failed(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, needed: true, failure: Some(why.into()) }
    }

    /// Checks whether a store answers in time. The store's error is not shown, because it may contain addresses and user names.
    pub async fn of_store<T, E>(name: &'static str, ping: impl Future<Output = Result<T, E>>) -> Self {
        match timeout(STORE_ANSWERS_WITHIN, ping).await {
            Ok(Ok(_)) => Self::passed(name),
            Ok(Err(_)) => Self::failed(name, "does not answer"),
            Err(_) => Self::failed(name, "does not answer in time"),
        }
    }

    /// The program works without this dependency, but not as well: if the check fails, it is degraded, not unready.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { needed: false, ..self }
    }

    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// All checks, and whether the program is ready.
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

    /// For programs that need one dependency or another, and decide themselves whether they are ready.
    #[must_use]
    pub fn when(ready: bool, checks: Vec<Check>) -> Self {
        Self { ready, checks }
    }

    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.ready && self.checks.iter().any(|check| !check.is_passed())
    }

    pub(super) fn checks(&self) -> Value {
        let shown = self.checks.iter().map(|check| {
            let mut result = Map::new();
            result.insert("status".to_owned(), json!(if check.is_passed() { "passed" } else { "failed" }));
            result.insert("needed".to_owned(), json!(check.needed));
            if let Some(failure) = &check.failure {
                result.insert("detail".to_owned(), json!(failure));
            }
            (check.name.to_owned(), Value::Object(result))
        });
        Value::Object(shown.collect())
    }
}
