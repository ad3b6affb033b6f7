//! What only the running relay knows, for those who run it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::AggregateKey;
use serde_json::{Value, json};
use service::ops::Check;

use super::mark::Mark;

/// At most this many aggregates are listed by name; their number is always told.
const LISTED: usize = 50;

/// Shared by the lanes, which write it, and the operations port, which shows it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By lane: why it does not work, `None` once it does.
    lanes: BTreeMap<i16, Option<String>>,
    /// The shards that this process owns, with what the broker acknowledged last.
    owned: BTreeMap<i16, Option<Mark>>,
    aside: BTreeMap<AggregateKey, Aside>,
    /// Repairs of the stream from the journal that are under way, by shard.
    repairs: BTreeMap<i16, String>,
}

/// An aggregate that is not published for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    pub shard: i16,
    /// Journal and stream tell different histories; a person has to decide.
    pub diverged: bool,
    pub reason: String,
}

/// How many there are of each.
pub(super) struct Totals {
    pub set_aside: i64,
    pub diverged: i64,
    pub repairing: i64,
}

impl Status {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn working(&self, lane: i16) {
        self.known().lanes.insert(lane, None);
    }

    pub(super) fn waiting(&self, lane: i16, why: String) {
        self.known().lanes.insert(lane, Some(why));
    }

    pub(super) fn owns(&self, shard: i16, mark: Option<Mark>) {
        self.known().owned.insert(shard, mark);
    }

    pub(super) fn repairs(&self, shard: i16, why: String) {
        self.known().repairs.insert(shard, why);
    }

    pub(super) fn repaired(&self, shard: i16) {
        self.known().repairs.remove(&shard);
    }

    /// What was known of these shards ends with their ownership, but for another history: that is still there.
    pub(super) fn released(&self, shards: &[i16]) {
        let mut known = self.known();
        known.owned.retain(|shard, _| !shards.contains(shard));
        known.repairs.retain(|shard, _| !shards.contains(shard));
        known.aside.retain(|_, aside| aside.diverged || !shards.contains(&aside.shard));
    }

    pub(super) fn set_aside(&self, key: AggregateKey, aside: Aside) {
        self.known().aside.insert(key, aside);
    }

    pub(super) fn taken_back(&self, key: &AggregateKey) {
        self.known().aside.remove(key);
    }

    /// The aggregates in these shards of which stream and journal told different histories when somebody last looked.
    pub(super) fn diverged(&self, shards: &[i16]) -> Vec<AggregateKey> {
        let known = self.known();
        let diverged = known.aside.iter().filter(|(_, aside)| aside.diverged && shards.contains(&aside.shard));
        diverged.map(|(key, _)| *key).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        let known = self.known();
        let count = |diverged: bool| known.aside.values().filter(|aside| aside.diverged == diverged).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Totals { set_aside: gauge(count(false)), diverged: gauge(count(true)), repairing: gauge(known.repairs.len()) }
    }

    /// All optional: commands are taken and kept without a broker.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let known = self.known();
        let waiting = known.lanes.values().find_map(Option::as_ref);
        let broker = waiting.map_or_else(|| Check::passed("relay"), |why| Check::failed("relay", why.as_str()));
        let diverged = known.aside.values().filter(|aside| aside.diverged).count();
        let aside = known.aside.len() - diverged;
        let count = |name, count: usize, what: &str| match count {
            0 => Check::passed(name),
            _ => Check::failed(name, format!("{count} aggregates {what}, see /status")),
        };
        vec![
            broker.optional(),
            count("relay_diverged", diverged, "have another history in the stream than in the journal").optional(),
            count("relay_set_aside", aside, "cannot be published for now").optional(),
        ]
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let known = self.known();
        let shards: Vec<Value> = (0..super::SHARDS)
            .map(|shard| match known.owned.get(&shard) {
                None => json!({ "shard": shard, "state": "standby" }),
                Some(mark) => json!({
                    "shard": shard,
                    "state": if known.repairs.contains_key(&shard) { "repairing" } else { "owned" },
                    "repair": known.repairs.get(&shard),
                    "mark": mark.as_ref().map(|mark| json!({
                        "sequence": mark.stored.sequence, "subject": mark.subject, "version": mark.stored.version, "event_id": mark.stored.event_id,
                    })),
                }),
            })
            .collect();
        let listed = |diverged: bool| -> Vec<Value> {
            let of_this_kind = known.aside.iter().filter(|(_, aside)| aside.diverged == diverged).take(LISTED);
            of_this_kind
                .map(|(key, aside)| json!({ "aggregate": key.kind, "id": key.id, "shard": aside.shard, "reason": aside.reason }))
                .collect()
        };
        let lanes: Vec<Value> = known
            .lanes
            .iter()
            .map(|(lane, waiting)| json!({ "lane": lane, "state": if waiting.is_some() { "waiting" } else { "working" }, "reason": waiting }))
            .collect();
        let diverged = known.aside.values().filter(|aside| aside.diverged).count();
        json!({
            "lanes": lanes,
            "shards": shards,
            "diverged": { "count": diverged, "aggregates": listed(true) },
            "set_aside": { "count": known.aside.len() - diverged, "aggregates": listed(false) },
        })
    }
}
