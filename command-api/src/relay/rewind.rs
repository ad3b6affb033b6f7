//! Whether the database went back: restored, or failed over to a copy that lacks what it had acknowledged.
//!
//! The stream is then ahead of the journal. What it holds beyond the last mark is normally what was in flight when a relay died,
//! and the journal has all of it. Whatever it lacks stays where it is, and its aggregates are set aside for a person to decide.

use std::collections::HashMap;

use events::AggregateKey;
use tracing::error;

use super::Broken;
use super::claim::{journal_ids, shard_of};
use super::lane::Lane;
use super::mark;
use super::resolve::{Stored, divergence};

/// Messages looked at, from the end back, even if they are marked: whoever owned these shards meanwhile has moved the marks on.
const LOOKED_AT: u64 = 2_000;

impl Lane<'_> {
    /// Sets those aggregates of this lane aside whose last events the journal lacks.
    pub async fn check_rewound(&mut self) -> Result<(), Broken> {
        let mut ends = self.ends_of_stream().await?;
        // What was found before counts until it is proven gone.
        let before = self.plan.status.diverged(&self.plan.shards);
        ends.extend(self.ends_of(&before).await?);
        let versions: Vec<(AggregateKey, u64)> = ends.iter().map(|(key, stored)| (*key, stored.version)).collect();
        let journal = journal_ids(&mut self.session, &versions).await?;
        for key in &before {
            self.plan.status.taken_back(key);
        }
        let mut rewound = 0;
        for ((key, stored), journal) in ends.into_iter().zip(journal) {
            if let Some(divergence) = divergence(&stored, journal) {
                rewound += 1;
                self.set_aside(key, divergence.to_string(), true);
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

    /// The last message of each aggregate of this lane in what the stream holds beyond the marks of its shards.
    ///
    /// Only these shards' marks tell: the others' may have moved on since the database went back.
    async fn ends_of_stream(&mut self) -> Result<HashMap<AggregateKey, Stored>, Broken> {
        let found = self.broker.found();
        let marked = mark::highest(&mut self.session, &self.plan.shards).await?;
        let first = (marked.min(found.last.saturating_sub(LOOKED_AT)) + 1).max(found.first);
        let seen = self.session.keep_while(self.broker.range(first..=found.last)).await??;
        let of_this_lane = seen.into_iter().filter_map(|(last, subject)| {
            let key = AggregateKey::from_subject(&subject).filter(|key| self.plan.shards.contains(&shard_of(key.id)))?;
            Some((key, last.event()?))
        });
        Ok(of_this_lane.collect())
    }

    /// The last messages of these aggregates.
    async fn ends_of(&mut self, keys: &[AggregateKey]) -> Result<HashMap<AggregateKey, Stored>, Broken> {
        let seen = self.session.keep_while(self.broker.last_of(keys.iter().copied())).await??;
        Ok(seen.into_iter().filter_map(|(key, last)| last.event().map(|stored| (key, stored))).collect())
    }
}
