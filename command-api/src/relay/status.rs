//! The state of the running relay, as `/ready`, `/status` and the metrics show it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use service::ops::Check;

use super::event::SubjectKey;
use super::watermark::Watermark;

/// Upper bound of aggregates that `/status` lists by name. Their number is always complete.
const LISTED: usize = 50;

/// Written by the lanes, read by the operations port and the metrics.
#[derive(Debug, Clone, Default)]
pub struct RelayStatus(Arc<Mutex<StatusFields>>);

#[derive(Debug, Default)]
struct StatusFields {
    /// By lane: why it does not work; `None` if it works.
    lanes: BTreeMap<i16, Option<String>>,
    /// The shards that this process owns, with their watermarks.
    owned: BTreeMap<i16, Option<Watermark>>,
    deferred: BTreeMap<SubjectKey, Deferral>,
    /// By shard: why the stream is being repaired from the journal.
    repairs: BTreeMap<i16, String>,
}

/// Why an aggregate is not published for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// Whether journal and stream hold different histories, so that an operator has to decide.
    pub diverged: bool,
    pub reason: String,
}

/// The numbers that the metrics show.
pub(super) struct StatusTotals {
    pub deferred: i64,
    pub diverged: i64,
    pub repairing: i64,
}

impl RelayStatus {
    fn fields(&self) -> MutexGuard<'_, StatusFields> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn working(&self, lane: i16) {
        self.fields().lanes.insert(lane, None);
    }

    pub(super) fn waiting(&self, lane: i16, why: String) {
        self.fields().lanes.insert(lane, Some(why));
    }

    pub(super) fn owns(&self, shard: i16, watermark: Option<Watermark>) {
        self.fields().owned.insert(shard, watermark);
    }

    pub(super) fn repairs(&self, shard: i16, why: String) {
        self.fields().repairs.insert(shard, why);
    }

    pub(super) fn repaired(&self, shard: i16) {
        self.fields().repairs.remove(&shard);
    }

    /// Removes what is known of these shards, except for diverged aggregates: those stay diverged, whoever owns the shard.
    pub(super) fn released(&self, shards: &[i16]) {
        let mut fields = self.fields();
        fields.owned.retain(|shard, _| !shards.contains(shard));
        fields.repairs.retain(|shard, _| !shards.contains(shard));
        fields.deferred.retain(|key, deferral| deferral.diverged || !shards.contains(&key.shard()));
    }

    pub(super) fn deferred(&self, key: SubjectKey, deferral: Deferral) {
        self.fields().deferred.insert(key, deferral);
    }

    pub(super) fn resumed(&self, key: &SubjectKey) {
        self.fields().deferred.remove(key);
    }

    /// Returns the aggregates of these shards that were diverged when their lane last checked.
    pub(super) fn diverged(&self, shards: &[i16]) -> Vec<SubjectKey> {
        let fields = self.fields();
        let diverged = fields.deferred.iter().filter(|(key, deferral)| deferral.diverged && shards.contains(&key.shard()));
        diverged.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn totals(&self) -> StatusTotals {
        let fields = self.fields();
        let count = |diverged: bool| fields.deferred.values().filter(|deferral| deferral.diverged == diverged).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        StatusTotals { deferred: gauge(count(false)), diverged: gauge(count(true)), repairing: gauge(fields.repairs.len()) }
    }

    /// Returns the readiness checks. All are optional: commands are accepted and stored without a broker.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let fields = self.fields();
        let waiting = fields.lanes.values().find_map(Option::as_ref);
        let broker = waiting.map_or_else(|| Check::passed("relay"), |why| Check::failed("relay", why.as_str()));
        let diverged = fields.deferred.values().filter(|deferral| deferral.diverged).count();
        let deferred = fields.deferred.len() - diverged;
        let count = |name, count: usize, what: &str| match count {
            0 => Check::passed(name),
            _ => Check::failed(name, format!("{count} aggregates {what}, see /status")),
        };
        vec![
            broker.optional(),
            count("relay_diverged", diverged, "have another history in the stream than in the journal").optional(),
            count("relay_set_aside", deferred, "cannot be published for now").optional(),
        ]
    }

    /// Returns what `/status` shows.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fields = self.fields();
        let shards: Vec<Value> = (0..super::SHARDS)
            .map(|shard| match fields.owned.get(&shard) {
                None => json!({ "shard": shard, "state": "standby" }),
                Some(mark) => json!({
                    "shard": shard,
                    "state": if fields.repairs.contains_key(&shard) { "repairing" } else { "owned" },
                    "repair": fields.repairs.get(&shard),
                    "mark": mark.as_ref().map(|mark| json!({
                        "sequence": mark.stored.sequence, "subject": mark.subject, "version": mark.stored.version, "event_id": mark.stored.event_id,
                    })),
                }),
            })
            .collect();
        let listed = |diverged: bool| -> Vec<Value> {
            let of_this_kind = fields.deferred.iter().filter(|(_, deferral)| deferral.diverged == diverged).take(LISTED);
            of_this_kind
                .map(|(key, deferral)| json!({ "aggregate": key.kind(), "id": key.id(), "shard": key.shard(), "reason": deferral.reason }))
                .collect()
        };
        let lanes: Vec<Value> = fields
            .lanes
            .iter()
            .map(|(lane, waiting)| json!({ "lane": lane, "state": if waiting.is_some() { "waiting" } else { "working" }, "reason": waiting }))
            .collect();
        let diverged = fields.deferred.values().filter(|deferral| deferral.diverged).count();
        json!({
            "lanes": lanes,
            "shards": shards,
            "diverged": { "count": diverged, "aggregates": listed(true) },
            "set_aside": { "count": fields.deferred.len() - diverged, "aggregates": listed(false) },
        })
    }
}
