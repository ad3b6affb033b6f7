//! Makes sure that the stream holds an event, and knows the last message of each aggregate that a lane has met.

use std::collections::{HashMap, HashSet};

use tracing::info;

use super::LaneError;
use super::batch::OutgoingEvent;
use super::event::{JournalEvent, StoredEvent, SubjectKey};
use super::journal_reader::{event_ids, versions_between};
use super::loss::LossDetector;
use super::metrics::RelayMetrics;
use super::resolve::{LastMessage, ResolveStep, next_step};
use super::send::{MessageIds, PublishAnswer, publish_batch, publish_one};
use super::session::LaneConnections;

/// Upper bound of attempts to resolve one event. More than this means that another program keeps publishing to its subject.
const RESOLVE_ATTEMPTS: u32 = 5;

/// Aggregates rejected in a row, from which on the broker is taken to reject everything.
const REJECTED_IN_A_ROW: usize = 10;

/// Aggregates whose last message is remembered. Forgetting one costs a read.
const LAST_MESSAGES_KEPT: usize = 100_000;

/// What became of an event that was resolved.
pub enum ResolveOutcome {
    Stored(StoredEvent),
    /// The broker will not take it.
    Rejected(String),
    /// It cannot be published for now.
    Deferred {
        reason: String,
        diverged: bool,
    },
}

/// What a lane knows of the stream.
pub struct Publisher {
    /// The last message of each subject, as far as it is proven to be the journal's event.
    last_messages: HashMap<SubjectKey, StoredEvent>,
    /// The aggregates that the broker rejected since it last stored an event.
    rejected_in_a_row: HashSet<SubjectKey>,
    metrics: RelayMetrics,
}

impl Publisher {
    pub fn new(metrics: RelayMetrics) -> Self {
        Self { last_messages: HashMap::new(), rejected_in_a_row: HashSet::new(), metrics }
    }

    pub fn last_messages(&self) -> &HashMap<SubjectKey, StoredEvent> {
        &self.last_messages
    }

    /// Records that the broker stored a batch, and returns the sequence of each event. A batch has consecutive sequences.
    pub fn record_batch<'e>(
        &mut self,
        loss: &mut LossDetector<'_>,
        batch: &'e [OutgoingEvent],
        last: u64,
    ) -> Result<Vec<(&'e JournalEvent, StoredEvent)>, LaneError> {
        let first = (last + 1).saturating_sub(batch.len() as u64);
        let stored = batch.iter().zip(first..);
        stored.map(|(OutgoingEvent { event, .. }, sequence)| Ok((event, self.record(loss, event, sequence)?))).collect()
    }

    fn record(&mut self, loss: &mut LossDetector<'_>, event: &JournalEvent, sequence: u64) -> Result<StoredEvent, LaneError> {
        loss.record_ack(sequence)?;
        self.rejected_in_a_row.clear();
        self.metrics.published();
        let stored = StoredEvent { version: event.version, event_id: event.id, sequence };
        self.remember(event.key.clone(), stored);
        Ok(stored)
    }

    /// Records that the broker rejected an event of this aggregate.
    pub fn record_rejection(&mut self, key: SubjectKey) {
        self.rejected_in_a_row.insert(key);
    }

    /// Returns whether so many aggregates were rejected in a row that the broker, not the events, is to blame.
    pub fn rejects_everything(&self) -> bool {
        self.rejected_in_a_row.len() >= REJECTED_IN_A_ROW
    }

    /// Reads the last messages of these aggregates, where they are not known. Keeps only those that are the journal's events: any
    /// other is read again, and judged, when its event is resolved.
    pub async fn look_up(&mut self, connections: &mut LaneConnections, mut keys: HashSet<SubjectKey>) -> Result<(), LaneError> {
        keys.retain(|key| !self.last_messages.contains_key(key));
        if keys.is_empty() {
            return Ok(());
        }
        let found = connections.session.keep_alive_while(connections.broker.last_events(keys)).await??;
        let versions = found.iter().map(|(key, stored)| (key, stored.version));
        let journal = event_ids(&mut connections.session, versions).await?;
        for ((key, stored), journal) in found.into_iter().zip(journal) {
            if journal == Some(stored.event_id) {
                self.remember(key, stored);
            }
        }
        Ok(())
    }

    /// Makes sure that the stream holds one event, or says why it does not. `gap_bytes` bounds a batch that fills a gap before it.
    pub async fn resolve(
        &mut self,
        connections: &mut LaneConnections,
        loss: &mut LossDetector<'_>,
        event: &JournalEvent,
        mut ids: MessageIds,
        gap_bytes: i64,
    ) -> Result<ResolveOutcome, LaneError> {
        let subject = event.key.subject();
        for _ in 0..RESOLVE_ATTEMPTS {
            connections.session.ping_if_due().await?;
            let last = connections.broker.last_message(&subject).await?;
            let journal = match last {
                LastMessage::Event(last) => {
                    let version = std::iter::once((&event.key, last.version));
                    event_ids(&mut connections.session, version).await?.pop().flatten()
                }
                LastMessage::None | LastMessage::Foreign { .. } => None,
            };
            let expected = match next_step(event.version, last, journal) {
                ResolveStep::Publish { expected } => expected,
                ResolveStep::FillGap { after, expected } => {
                    if let Some(outcome) = self.fill_gap(connections, loss, event, (after, expected), gap_bytes).await? {
                        return Ok(outcome);
                    }
                    continue;
                }
                ResolveStep::AlreadyStored(stored) => {
                    self.remember(event.key.clone(), stored);
                    return Ok(ResolveOutcome::Stored(stored));
                }
                ResolveStep::Diverged(divergence) => {
                    return Ok(ResolveOutcome::Deferred { reason: divergence.to_string(), diverged: true });
                }
            };
            let publishing = publish_one(&connections.broker, event, expected, ids);
            match connections.session.keep_alive_while(publishing).await?? {
                PublishAnswer::Stored { sequence } => return Ok(ResolveOutcome::Stored(self.record(loss, event, sequence)?)),
                PublishAnswer::Unconfirmed => {}
                PublishAnswer::Duplicate => ids = MessageIds::Repair,
                PublishAnswer::Rejected(reason) => return Ok(ResolveOutcome::Rejected(reason)),
                PublishAnswer::Unavailable(reason) => return Err(LaneError::Unavailable(reason)),
            }
        }
        let reason = format!("another program keeps publishing to {subject}");
        Ok(ResolveOutcome::Deferred { reason, diverged: false })
    }

    /// Publishes the versions before this event from the journal, beginning after version `after`, whose sequence is `expected`.
    /// Returns an outcome only if that failed and the event cannot be published either.
    async fn fill_gap(
        &mut self,
        connections: &mut LaneConnections,
        loss: &mut LossDetector<'_>,
        event: &JournalEvent,
        (mut after, mut expected): (u64, u64),
        bytes_at_most: i64,
    ) -> Result<Option<ResolveOutcome>, LaneError> {
        // A row that committed late leaves a gap, and so does a loss. A loss must be detected before the gap is filled, because
        // other aggregates may have lost events too.
        loss.check(connections).await?;
        info!(aggregate.name = event.key.kind(), aggregate.id = %event.key.id(), after, before = event.version, "Filling a gap of {} from the journal", event.key);
        while after + 1 < event.version {
            let missing = versions_between(&mut connections.session, &event.key, after, event.version).await?;
            let mut bytes = 0;
            let mut batch = Vec::with_capacity(missing.len());
            for event in missing {
                bytes += event.body.len();
                let first = batch.is_empty();
                if event.version != after + 1 || !(first || i64::try_from(bytes).is_ok_and(|bytes| bytes <= bytes_at_most)) {
                    break;
                }
                after = event.version;
                batch.push(OutgoingEvent { event, expected: first.then_some(expected) });
            }
            if batch.is_empty() {
                let reason = format!("the journal lacks version {}", after + 1);
                return Ok(Some(ResolveOutcome::Deferred { reason, diverged: false }));
            }
            let publishing = publish_batch(&connections.broker, &batch, MessageIds::Repair);
            match connections.session.keep_alive_while(publishing).await?? {
                PublishAnswer::Stored { sequence } => {
                    self.record_batch(loss, &batch, sequence)?;
                    expected = sequence;
                }
                PublishAnswer::Unconfirmed | PublishAnswer::Duplicate => return Ok(None),
                PublishAnswer::Rejected(reason) => return Ok(Some(ResolveOutcome::Rejected(reason))),
                PublishAnswer::Unavailable(reason) => return Err(LaneError::Unavailable(reason)),
            }
        }
        Ok(None)
    }

    fn remember(&mut self, key: SubjectKey, last: StoredEvent) {
        if self.last_messages.len() >= LAST_MESSAGES_KEPT {
            self.last_messages.clear();
        }
        self.last_messages.insert(key, last);
    }
}
