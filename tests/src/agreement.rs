//! Whether every store tells the same story: the check at the end of each scenario.

mod catalogue;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use events::stock::StockLevel;
use events::{Aggregate as _, AggregateKey, Listing, Stock};
use serde_json::Value;
use uuid::Uuid;
use views::listing_search;

use crate::marketplace::Marketplace;
use crate::stores::{Held, JournalEntry, StreamMessage};

/// How many versions of one aggregate the stream keeps (`max_msgs_per_subject`).
const VERSIONS_KEPT: usize = 100;

/// Every fault is told, not only the first: they explain each other.
#[derive(Debug, Default)]
struct Faults(Vec<String>);

impl Faults {
    fn check(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
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
        let mut faults = Faults::default();
        for (key, history) in &mut histories {
            history.sort_by_key(|entry| entry.version);
            let versions: Vec<u64> = history.iter().map(|entry| entry.version).collect();
            faults.check(versions.iter().copied().eq(1..=versions.len() as u64), || {
                format!("the journal of {key} counts {versions:?}")
            });
        }
        self.check_stream(&histories, &mut faults).await?;
        self.check_write_side(&histories, &mut faults).await?;
        self.check_read_models(&histories, &mut faults).await?;
        anyhow::ensure!(faults.0.is_empty(), "the stores disagree:\n{}", faults.0.join("\n"));
        Ok(())
    }

    async fn check_stream(
        &self,
        histories: &BTreeMap<AggregateKey, Vec<&JournalEntry>>,
        faults: &mut Faults,
    ) -> anyhow::Result<()> {
        let stream = self.stream().await?;
        for (key, history) in histories {
            // What a scenario injected has no id in its headers, and an old version; it is not the relay's.
            let stored: Vec<&StreamMessage> =
                stream.iter().filter(|message| message.key() == Some(*key) && message.event_id().is_some()).collect();
            let sent: Vec<_> = stored.iter().map(|message| (message.version(), message.event_id().map(str::to_owned))).collect();
            let kept = history.len().saturating_sub(VERSIONS_KEPT);
            let due: Vec<_> = history.iter().map(|entry| (Some(entry.version), Some(entry.event_id.to_string()))).collect();
            faults.check(due.ends_with(&sent) && sent.len() >= due.len() - kept, || {
                format!("the stream holds {sent:?} of {key}, the journal {due:?}")
            });
            for (message, entry) in stored.iter().rev().zip(history.iter().rev()) {
                let same = serde_json::from_slice::<Value>(&message.body).is_ok_and(|body| body == entry.body);
                faults.check(same, || format!("the stream holds another body of {key} v{} than the journal", entry.version));
            }
        }
        Ok(())
    }

    async fn check_write_side(
        &self,
        histories: &BTreeMap<AggregateKey, Vec<&JournalEntry>>,
        faults: &mut Faults,
    ) -> anyhow::Result<()> {
        for (id, version, state, deleted) in self.states().await? {
            let key = AggregateKey::listing(id);
            let last = histories.get(&key).and_then(|history| history.last());
            let last = last.with_context(|| format!("{key} has no event"))?;
            faults.check(i64::try_from(last.version).is_ok_and(|last| last == version), || {
                format!("command.listings holds v{version} of {key}, the journal ends with v{}", last.version)
            });
            faults
                .check(deleted == last.body["state"].is_null(), || format!("{key} is deleted in one of table and journal only"));
            faults.check(deleted || last.body["state"] == state, || {
                format!("command.listings holds {state} of {key}, not {}", last.body)
            });
        }
        let stocks = self.stocked().await?;
        for (key, history) in histories.iter().filter(|(key, _)| key.kind == Stock::KIND) {
            let (held, due) = (stocks.get(&key.id), last(history)?);
            faults.check(held == Some(&due), || format!("command.stock holds {held:?} of {key}, the journal ends with {due:?}"));
        }
        Ok(())
    }

    async fn check_read_models(
        &self,
        histories: &BTreeMap<AggregateKey, Vec<&JournalEntry>>,
        faults: &mut Faults,
    ) -> anyhow::Result<()> {
        let letters = self.dead_letters().await?;
        let excused: BTreeSet<(String, Uuid)> = letters.iter().filter_map(|letter| excused(&letter.subject)).collect();
        let listings: Vec<Uuid> = histories.keys().filter(|key| key.kind == Listing::KIND).map(|key| key.id).collect();
        for (id, odd) in self.odd_columns().await? {
            faults.check(false, || format!("listing_catalog holds of {id} {odd}"));
        }
        let (documents, catalogue, levels) =
            (self.documents(&listings).await?, self.catalogue().await?, self.stock_levels().await?);

        for (key, history) in histories {
            let due = last(history)?;
            let mut compare = |projection: &str, held: Option<&Held>, due: &Held| {
                let excused = excused.contains(&(projection.to_owned(), key.id));
                faults.check(excused || held == Some(due), || {
                    format!("{projection} holds {held:?} of {key}, by the journal it is {due:?}")
                });
            };
            if key.kind == Listing::KIND {
                compare(listing_search::NAME, documents.get(&key.id), &due);
                compare("listing_catalog", catalogue.get(&key.id), &due);
                if let Some(page) = self.page(key.id).await? {
                    compare("listing_page", Some(&page), &due);
                }
            }
            if key.kind == Stock::KIND {
                compare("stock_levels", levels.get(&key.id), &due);
                if let Some(page) = self.cached_stock(key.id).await? {
                    compare("listing_page", Some(&page), &Held { version: due.version, state: shown(due.state)? });
                }
            }
        }
        Ok(())
    }
}

/// What a history ends with.
fn last(history: &[&JournalEntry]) -> anyhow::Result<Held> {
    let last = history.last().context("an empty history")?;
    Ok(Held { version: last.version, state: Some(last.body["state"].clone()).filter(|state| !state.is_null()) })
}

/// A stock as clients see it.
fn shown(stock: Option<Value>) -> anyhow::Result<Option<Value>> {
    let Some(stock) = stock else { return Ok(None) };
    let stock: Stock = serde_json::from_value(stock)?;
    Ok(Some(serde_json::to_value(StockLevel::from(&stock))?))
}

/// Projection and aggregate of a dead letter: `listings.dlq.<projection>.<class>.<aggregate>.<id>`.
fn excused(subject: &str) -> Option<(String, Uuid)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    Some((tokens.get(2)?.to_string(), tokens.last()?.parse().ok()?))
}
