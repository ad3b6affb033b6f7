//! Whether every store tells the same story: the check at the end of each scenario.

mod catalogue;
mod contents;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use events::{AGGREGATES, AggregateKey};
use serde_json::Value;
use uuid::Uuid;

use crate::marketplace::Marketplace;
use crate::stores::{Held, JournalEntry, StreamMessage};

/// How many versions of one aggregate the stream keeps (`max_msgs_per_subject`).
const VERSIONS_KEPT: usize = 100;

/// Everything in which the stores disagree. All of it is reported, because one disagreement explains another.
#[derive(Debug, Default)]
struct Disagreements(Vec<String>);

impl Disagreements {
    fn check(&mut self, holds: bool, disagreement: impl FnOnce() -> String) {
        if !holds {
            self.0.push(disagreement());
        }
    }
}

impl Marketplace {
    /// Checks that the journal counts every aggregate from 1, that the stream repeats it, and that the write side and every
    /// projection hold its last state. A projection that has a dead letter of an aggregate is excused from it.
    pub async fn check_agreement(&self) -> anyhow::Result<()> {
        let journal = self.journal().await?;
        let mut histories: BTreeMap<AggregateKey, Vec<&JournalEntry>> = BTreeMap::new();
        for entry in &journal {
            histories.entry(entry.key).or_default().push(entry);
        }
        let mut disagreements = Disagreements::default();
        for (key, history) in &mut histories {
            history.sort_by_key(|entry| entry.version);
            let versions: Vec<u64> = history.iter().map(|entry| entry.version).collect();
            disagreements.check(versions.iter().copied().eq(1..=versions.len() as u64), || {
                format!("the journal of {key} counts {versions:?}")
            });
        }
        self.check_stream(&histories, &mut disagreements).await?;
        self.check_stores(&histories, &mut disagreements).await?;
        anyhow::ensure!(disagreements.0.is_empty(), "the stores disagree:\n{}", disagreements.0.join("\n"));
        Ok(())
    }

    async fn check_stream(
        &self,
        histories: &BTreeMap<AggregateKey, Vec<&JournalEntry>>,
        disagreements: &mut Disagreements,
    ) -> anyhow::Result<()> {
        let stream = self.stream().await?;
        for (key, history) in histories {
            // What a scenario injected has no id in its headers, and an old version; it is not the relay's.
            let stored: Vec<&StreamMessage> =
                stream.iter().filter(|message| message.key() == Some(*key) && message.event_id().is_some()).collect();
            let sent: Vec<_> = stored.iter().map(|message| (message.version(), message.event_id().map(str::to_owned))).collect();
            let kept = history.len().saturating_sub(VERSIONS_KEPT);
            let due: Vec<_> = history.iter().map(|entry| (Some(entry.version), Some(entry.event_id.to_string()))).collect();
            disagreements.check(due.ends_with(&sent) && sent.len() >= due.len() - kept, || {
                format!("the stream holds {sent:?} of {key}, the journal {due:?}")
            });
            for (message, entry) in stored.iter().rev().zip(history.iter().rev()) {
                let same = serde_json::from_slice::<Value>(&message.body).is_ok_and(|body| body == entry.body);
                disagreements
                    .check(same, || format!("the stream holds another body of {key} v{} than the journal", entry.version));
            }
        }
        Ok(())
    }

    /// Compares every store of every kind of aggregate with the end of each history.
    async fn check_stores(
        &self,
        histories: &BTreeMap<AggregateKey, Vec<&JournalEntry>>,
        disagreements: &mut Disagreements,
    ) -> anyhow::Result<()> {
        let dead_letters = self.dead_letters().await?;
        let excused: BTreeSet<(String, Uuid)> = dead_letters.iter().filter_map(|letter| excused(&letter.subject)).collect();
        for kind in AGGREGATES {
            let ids: Vec<Uuid> = histories.keys().filter(|key| key.kind == kind).map(|key| key.id).collect();
            for store in self.contents(kind, &ids).await? {
                for id in &ids {
                    let key = AggregateKey { kind, id: *id };
                    let due = (store.shows)(last(&histories[&key])?)?;
                    let held = store.held.get(id);
                    let lacks = store.is_cache && held.is_none();
                    let excused = excused.contains(&(store.name.to_owned(), *id));
                    disagreements.check(lacks || excused || held == Some(&due), || {
                        format!("{} holds {held:?} of {key}, by the journal it is {due:?}", store.name)
                    });
                }
                for id in store.held.keys().filter(|id| store.is_write_side && !ids.contains(id)) {
                    disagreements.check(false, || format!("{} holds {kind} {id}, which has no event", store.name));
                }
            }
        }
        for (id, odd) in self.odd_columns().await? {
            disagreements.check(false, || format!("listing_catalog holds of {id} {odd}"));
        }
        Ok(())
    }
}

/// What a history ends with.
fn last(history: &[&JournalEntry]) -> anyhow::Result<Held> {
    let last = history.last().context("an empty history")?;
    Ok(Held { version: last.version, state: Some(last.body["state"].clone()).filter(|state| !state.is_null()) })
}

/// Projection and aggregate of a dead letter: `listings.dlq.<projection>.<class>.<aggregate>.<id>`.
fn excused(subject: &str) -> Option<(String, Uuid)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    Some((tokens.get(2)?.to_string(), tokens.last()?.parse().ok()?))
}
