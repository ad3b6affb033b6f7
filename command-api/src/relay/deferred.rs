//! Aggregates that cannot be published for now: each is retried with backoff, while the others of its shard go on (PROTOCOL R7).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::event::SubjectKey;
use super::status::{Deferral, RelayStatus};

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_mins(1);

struct RetryAt {
    at: Instant,
    backoff: Duration,
}

/// The aggregates of a lane whose publication is deferred.
///
/// An aggregate stays in here after its backoff has passed, until one of its events is acknowledged: until then it is published
/// alone, never in a batch.
pub struct DeferredAggregates {
    retries: HashMap<SubjectKey, RetryAt>,
    status: RelayStatus,
}

impl DeferredAggregates {
    pub fn none(status: RelayStatus) -> Self {
        Self { retries: HashMap::new(), status }
    }

    pub fn contains(&self, key: &SubjectKey) -> bool {
        self.retries.contains_key(key)
    }

    /// Returns whether the aggregate's backoff has not passed yet.
    pub fn is_backing_off(&self, key: &SubjectKey) -> bool {
        self.retries.get(key).is_some_and(|retry| retry.at > Instant::now())
    }

    /// Returns the aggregates that a claim leaves out.
    pub fn backing_off(&self) -> Vec<SubjectKey> {
        self.retries.keys().filter(|key| self.is_backing_off(key)).cloned().collect()
    }

    pub fn defer(&mut self, key: SubjectKey, reason: String, diverged: bool) {
        let backoff = self.retries.get(&key).map_or(BACKOFF_FIRST, |retry| (retry.backoff * 2).min(BACKOFF_LAST));
        warn!(aggregate.name = key.kind(), aggregate.id = %key.id(), diverged, retry_ms = backoff.as_millis(), "Deferred the publication of {key}: {reason}");
        self.retries.insert(key.clone(), RetryAt { at: Instant::now() + backoff, backoff });
        self.status.deferred(key, Deferral { diverged, reason });
    }

    pub fn resume(&mut self, key: &SubjectKey) {
        if !self.retries.is_empty() && self.retries.remove(key).is_some() {
            self.status.resumed(key);
        }
    }
}
