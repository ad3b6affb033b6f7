//! Publishes again, from the journal, what the stream has lost.
//!
//! Nothing new of a shard is published before its repair is complete. If the process dies half-way, the watermarks are still
//! invalid, so the next owner starts the repair again; it recognises by its id what is stored already. An event that cannot be
//! published returns to the outbox, and waits there like any other.

use super::LaneError;
use super::claim::return_to_outbox;
use super::deferred::DeferredAggregates;
use super::event::{JournalEvent, SubjectKey};
use super::journal_reader::{last_seq, rows_of_shards};
use super::session::RelaySession;
use super::watermark;

/// The repair of some shards: a cursor over their events in the journal.
pub struct ShardRepair {
    shards: Vec<i16>,
    /// The last row of the journal when the repair began.
    end: i64,
    /// The last row that was read.
    after: i64,
    /// The rows read last, by shard and seq: those of events, and those that no subject can name.
    events: Vec<(SubjectKey, (i16, i64))>,
    unpublishable: Vec<(i16, i64)>,
}

impl ShardRepair {
    /// Invalidates the watermarks, because what is published from here on could hide what is still missing.
    pub async fn begin(session: &mut RelaySession, shards: Vec<i16>) -> Result<Self, LaneError> {
        watermark::invalidate(session, &shards).await?;
        let end = last_seq(session).await?;
        Ok(Self { shards, end, after: 0, events: Vec::new(), unpublishable: Vec::new() })
    }

    pub fn shards(&self) -> &[i16] {
        &self.shards
    }

    /// Reads the next events of the journal, up to `bytes` of bodies; `None` after the last one.
    pub async fn next(&mut self, session: &mut RelaySession, bytes: i64) -> Result<Option<Vec<JournalEvent>>, LaneError> {
        let read = rows_of_shards(session, &self.shards, self.after, self.end, bytes).await?;
        let Some(reached) = read.reached.values().max() else {
            return Ok(None);
        };
        self.after = *reached;
        self.events = read.events.iter().map(|event| (event.key.clone(), (event.shard(), event.seq))).collect();
        self.unpublishable = read.unpublishable.iter().map(|row| (row.shard(), row.seq)).collect();
        Ok(Some(read.events))
    }

    /// Returns those of the events read last to the outbox that could not be published.
    pub async fn return_unpublished(
        &mut self,
        session: &mut RelaySession,
        deferred: &DeferredAggregates,
    ) -> Result<(), LaneError> {
        let mut rows = std::mem::take(&mut self.unpublishable);
        rows.extend(self.events.drain(..).filter(|(key, _)| deferred.contains(key)).map(|(_, row)| row));
        return_to_outbox(session, &rows).await
    }
}
