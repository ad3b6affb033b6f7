//! Gives the stream back, from the journal, what the broker has lost.
//!
//! Nothing new of a shard is published before. If we die half-way the mark still says what it said, so the next owner finds
//! the loss again and goes on: what is there already is recognised by its id.

use std::collections::HashSet;

use tracing::{info, warn};

use super::Broken;
use super::batch::{Sorted, sort};
use super::claim::{journal_end, journal_of};
use super::lane::Lane;
use super::mark;
use super::publish::{Answer, Naming};
use super::ship::{Acknowledged, Outcome};

impl Lane<'_> {
    /// Publishes every event of these shards that the stream does not hold, then owns them.
    pub async fn repair(&mut self, lost: &[(i16, String)]) -> Result<(), Broken> {
        let shards: Vec<i16> = lost.iter().map(|(shard, _)| *shard).collect();
        for (shard, why) in lost {
            warn!(relay.shard = shard, "The broker lost events of shard {shard}, repairing from the journal: {why}");
            self.plan.status.owns(*shard, None);
            self.plan.status.repairs(*shard, why.clone());
        }
        let mut proven = Acknowledged::default();
        let mut published = 0;
        let end = journal_end(&mut self.session).await?;
        let mut after = 0;
        while !self.stop.is_cancelled() {
            let claimed = journal_of(&mut self.session, &shards, after, end).await?;
            let Some(reached) = claimed.reached.iter().map(|(_, seq)| *seq).max() else {
                break;
            };
            after = reached;
            // With nothing in the stream there is nothing to look at, but for what was forgotten meanwhile.
            let first = if self.broker.was_empty() { 2 } else { 1 };
            let unknown: HashSet<_> =
                claimed.events.iter().filter(|event| event.version >= first).map(|event| event.key).collect();
            self.look_up(unknown).await?;
            let Sorted { together, there, mut alone } = sort(claimed.events, &self.tips);
            for (event, stored) in &there {
                proven.mark(event, *stored);
            }
            if !together.is_empty() {
                match self.session.keep_while(self.broker.publish(&together, Naming::Again)).await?? {
                    Answer::Stored { sequence } => {
                        published += together.len();
                        for (event, stored) in self.all_stored(&together, sequence)? {
                            proven.mark(event, stored);
                        }
                    }
                    Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
                    Answer::Contradicted | Answer::Duplicate | Answer::Refused(_) => {
                        alone.splice(0..0, together.into_iter().map(|(event, _)| event));
                    }
                }
            }
            for event in alone {
                if self.is_aside(&event.key) {
                    continue;
                }
                match self.resolve(&event, Naming::Again).await? {
                    Outcome::Stored(stored) => proven.mark(&event, stored),
                    Outcome::Aside { reason, diverged } => self.set_aside(event.key, event.shard(), reason, diverged),
                }
            }
        }
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let marks: Vec<_> = proven.marks.into_iter().collect();
        mark::settle(&mut self.session, self.broker.stream_created(), &[], &marks).await?;
        for shard in shards {
            self.plan.status.repaired(shard);
            self.owned.insert(shard, 0);
            info!(relay.shard = shard, "Repaired shard {shard}");
        }
        for (shard, mark) in marks {
            self.plan.status.owns(shard, Some(mark));
        }
        info!(relay.lane = self.plan.number, events = published, "Published {published} events again");
        Ok(())
    }
}
