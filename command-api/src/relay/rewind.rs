//! Whether the database went back: restored, or failed over to a copy that lacks what it had acknowledged.
//!
//! The stream is then ahead of the journal. What it holds beyond the last mark is normally what was in flight when a relay died,
//! and the journal has all of it. Whatever it lacks stays where it is, and its aggregates are set aside for a person to decide.

use std::collections::HashMap;

use events::AggregateKey;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::error;

use super::Broken;
use super::claim::{journal_ids, shard_of};
use super::lane::Lane;
use super::mark;
use super::resolve::{Last, Stored, divergence};

/// Messages looked at, from the end back. More than can be in flight; the rest of a long rewind is found as commands touch it.
const LOOKED_AT: u64 = 2_000;
/// Messages asked for side by side.
const AT_ONCE: usize = 64;

impl Lane<'_> {
    /// Sets those aggregates of this lane aside whose last events the journal lacks.
    pub async fn check_rewound(&mut self) -> Result<(), Broken> {
        let marked = mark::highest(&mut self.session, self.broker.stream_created()).await?;
        let last = self.broker.last_sequence().await?;
        let first = marked.max(last.saturating_sub(LOOKED_AT)) + 1;
        let broker = &self.broker;
        let looking = stream::iter(first..=last).map(|sequence| broker.at(sequence)).buffered(AT_ONCE).try_collect();
        let seen: Vec<Option<(Last, String)>> = self.session.keep_while(looking).await??;
        let mut ends: HashMap<AggregateKey, Stored> = HashMap::new();
        for (last, subject) in seen.into_iter().flatten() {
            if let (Last::Event(stored), Some(key)) = (last, AggregateKey::from_subject(&subject))
                && self.plan.shards.contains(&shard_of(key.id))
            {
                ends.insert(key, stored);
            }
        }
        let versions: Vec<(AggregateKey, u64)> = ends.iter().map(|(key, stored)| (*key, stored.version)).collect();
        let journal = journal_ids(&mut self.session, &versions).await?;
        let mut rewound = 0;
        for ((key, stored), journal) in ends.into_iter().zip(journal) {
            if let Some(divergence) = divergence(&stored, journal) {
                rewound += 1;
                self.set_aside(key, shard_of(key.id), divergence.to_string(), true);
            }
        }
        if rewound > 0 {
            error!(
                relay.lane = self.plan.number,
                aggregates = rewound,
                "The database went back: the stream holds later events of {rewound} aggregates than the journal; they are not published"
            );
        }
        Ok(())
    }
}
