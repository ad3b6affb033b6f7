//! Gives the stream back, from the journal, what the broker has lost.
//!
//! Nothing new of a shard is published before. If we die half-way the marks are still doubtful, so the next owner begins again:
//! what is there already is recognised by its id. What cannot be published goes back to the outbox, and waits there like any other.

use std::collections::HashSet;

use events::AggregateKey;
use tracing::{info, warn};

use super::Broken;
use super::claim::{journal_end, journal_of, put_back};
use super::lane::Lane;
use super::mark::{self, Mark};
use super::publish::Naming;

impl Lane<'_> {
    /// Publishes every event of these shards that the stream does not hold, then owns them.
    pub async fn repair(&mut self, lost: &[(i16, String)]) -> Result<(), Broken> {
        let shards: Vec<i16> = lost.iter().map(|(shard, _)| *shard).collect();
        for (shard, why) in lost {
            warn!(relay.shard = shard, "The broker lost events of shard {shard}, repairing from the journal: {why}");
            self.plan.status.owns(*shard, None);
            self.plan.status.repairs(*shard, why.clone());
        }
        // What is published from here on could hide what is still missing.
        mark::doubt(&mut self.session, &shards).await?;
        let end = journal_end(&mut self.session).await?;
        let mut after = 0;
        while !self.stop.is_cancelled() {
            let claimed = journal_of(&mut self.session, &shards, after, end, self.pace.batch_bytes).await?;
            let Some(reached) = claimed.reached.iter().map(|(_, seq)| *seq).max() else {
                break;
            };
            after = reached;
            // With nothing in the stream there is nothing to look at, but for what was forgotten meanwhile.
            let first = if self.broker.found().messages == 0 { 2 } else { 1 };
            let known: HashSet<AggregateKey> =
                claimed.events.iter().filter(|event| event.version >= first).map(|event| event.key).collect();
            self.look_up(known).await?;
            let rows: Vec<_> = claimed.events.iter().map(|event| (event.key, (event.shard(), event.seq))).collect();
            self.ship(claimed.events, false, Naming::Again).await?;
            self.settle().await?;
            let aside = rows.into_iter().filter(|(key, _)| self.aside.contains_key(key)).map(|(_, row)| row);
            let left: Vec<(i16, i64)> =
                aside.chain(claimed.unknown.iter().map(|unknown| (unknown.shard(), unknown.seq))).collect();
            put_back(&mut self.session, &left).await?;
        }
        if self.stop.is_cancelled() {
            return Ok(());
        }
        self.check_nothing_lost().await?;
        let marks: Vec<(i16, Mark)> =
            shards.iter().filter_map(|shard| self.marks.get(shard).map(|mark| (*shard, mark.clone()))).collect();
        mark::trust(&mut self.session, self.broker.stream_created(), &shards, &marks).await?;
        for shard in shards {
            self.plan.status.repaired(shard);
            self.owned.insert(shard, 0);
            info!(relay.shard = shard, "Repaired shard {shard}");
        }
        Ok(())
    }
}
