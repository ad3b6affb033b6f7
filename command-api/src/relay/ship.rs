//! Publishes what a lane has claimed: as much as possible in one batch, the rest one by one, looking first.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use events::AggregateKey;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Broken;
use super::batch::{Sorted, sort};
use super::claim::{Event, from_journal, journal_ids};
use super::lane::Lane;
use super::mark::{self, Mark};
use super::publish::{Answer, Naming};
use super::resolve::{Last, Step, Stored, next_step};

/// Looks at the subject and acts; more often than this means that somebody else publishes to it all the time.
const TRIES: u32 = 5;

/// Aggregates refused one after the other, from which on the broker is taken to refuse everybody.
const REFUSALS: usize = 10;

/// Rows that are worth a deletion of their own while more are waiting: asking the stream and moving the marks cost the same for
/// one batch as for several. What is not deleted when the relay dies is found in the stream by its successor, aggregate by aggregate.
const SETTLE_AT: usize = 2000;

/// What became of one event.
pub enum Outcome {
    Stored(Stored),
    /// The broker will not take it.
    Refused(String),
    Aside {
        reason: String,
        diverged: bool,
    },
}

impl Lane<'_> {
    /// Publishes events; while they are on their way, deletes what was acknowledged before and claims the next ones, if `ahead`.
    pub async fn ship(&mut self, mut events: Vec<Event>, mut ahead: bool, naming: Naming) -> Result<Option<Vec<Event>>, Broken> {
        let mut next = None;
        while !events.is_empty() {
            // They may have been claimed before their aggregate was set aside.
            events.retain(|event| !self.is_aside(&event.key));
            let Sorted { together, there, mut alone } = sort(events, &self.tips, |key| self.aside.contains_key(key));
            for (event, stored) in there {
                self.acknowledge(&event, stored);
            }
            if !together.is_empty() {
                let (answer, claimed) = self.publish_while_settling(&together, ahead, naming).await?;
                next = next.or(claimed);
                ahead = false;
                alone.splice(0..0, self.acknowledge_batch(together, answer)?);
            }
            events = self.resolve_first_of_each(alone, naming).await?;
        }
        Ok(next)
    }

    /// The session's work and the broker's go on side by side: that is most of the relay's speed.
    async fn publish_while_settling(
        &mut self,
        together: &[(Event, Option<u64>)],
        ahead: bool,
        naming: Naming,
    ) -> Result<(Answer, Option<Vec<Event>>), Broken> {
        let broker = Arc::clone(&self.broker);
        let answered = CancellationToken::new();
        let publishing = async {
            let _answered = answered.clone().drop_guard();
            broker.publish(together, naming).await
        };
        let working = async {
            if self.acknowledged.len() >= SETTLE_AT {
                self.settle().await?;
            }
            let mut next = None;
            if ahead {
                let in_flight: HashSet<AggregateKey> = together.iter().map(|(event, _)| event.key).collect();
                next = Some(self.claim(&in_flight).await?);
            }
            self.session.keep_while(answered.cancelled()).await?;
            Ok(next)
        };
        tokio::try_join!(publishing, working)
    }

    /// Returns the events that the answer says nothing about: they are to be looked at one by one.
    fn acknowledge_batch(&mut self, together: Vec<(Event, Option<u64>)>, answer: Answer) -> Result<Vec<Event>, Broken> {
        match answer {
            Answer::Stored { sequence } => {
                for (event, stored) in self.all_stored(&together, sequence)? {
                    self.acknowledge(event, stored);
                }
                Ok(Vec::new())
            }
            Answer::Waiting(reason) => Err(Broken::Waiting(reason)),
            Answer::Contradicted | Answer::Duplicate | Answer::Refused(_) => {
                debug!(events = together.len(), ?answer, "Resolving a batch one by one");
                Ok(together.into_iter().map(|(event, _)| event).collect())
            }
        }
    }

    /// Looks at the first event of each aggregate on its own; returns the others, which can follow it together.
    async fn resolve_first_of_each(&mut self, events: Vec<Event>, naming: Naming) -> Result<Vec<Event>, Broken> {
        let mut first = HashSet::new();
        let mut later = Vec::new();
        let mut refusal = None;
        for event in events {
            if !first.insert(event.key) {
                later.push(event);
                continue;
            }
            match self.resolve(&event, naming).await? {
                Outcome::Stored(stored) => self.acknowledge(&event, stored),
                Outcome::Refused(reason) => {
                    self.refused.insert(event.key);
                    refusal = Some(reason.clone());
                    self.set_aside(event.key, reason, false);
                }
                Outcome::Aside { reason, diverged } => self.set_aside(event.key, reason, diverged),
            }
        }
        match refusal {
            Some(reason) if self.refused.len() >= REFUSALS => Err(Broken::Waiting(reason)),
            Some(_) | None => Ok(later),
        }
    }

    /// A batch is stored in one piece: its last sequence gives all the others.
    fn all_stored<'e>(&mut self, together: &'e [(Event, Option<u64>)], last: u64) -> Result<Vec<(&'e Event, Stored)>, Broken> {
        let first = (last + 1).saturating_sub(together.len() as u64);
        together.iter().zip(first..).map(|((event, _), sequence)| Ok((event, self.one_stored(event, sequence)?))).collect()
    }

    fn one_stored(&mut self, event: &Event, sequence: u64) -> Result<Stored, Broken> {
        // Sequences only rise, unless the broker lost the end of the stream and gives them again.
        if sequence <= self.newest {
            return Err(Broken::Waiting(format!("the stream went back from sequence {} to {sequence}", self.newest)));
        }
        self.newest = sequence;
        self.refused.clear();
        self.plan.metrics.published();
        let stored = Stored { version: event.version, event_id: event.id, sequence };
        self.remember(event.key, stored);
        Ok(stored)
    }

    /// An aggregate that was set aside is not any more, and the shard's mark moves forward.
    fn acknowledge(&mut self, event: &Event, stored: Stored) {
        if !self.aside.is_empty() && self.aside.remove(&event.key).is_some() {
            self.plan.status.taken_back(&event.key);
        }
        let shard = event.shard();
        self.acknowledged.push((shard, event.seq));
        if self.marks.get(&shard).is_none_or(|mark| mark.stored.sequence < stored.sequence) {
            self.marks.insert(shard, Mark { subject: event.key.subject(), stored });
        }
    }

    /// Deletes what was acknowledged from the outbox.
    pub async fn settle(&mut self) -> Result<(), Broken> {
        if self.acknowledged.is_empty() {
            return Ok(());
        }
        self.check_nothing_lost().await?;
        let rows = std::mem::take(&mut self.acknowledged);
        let shards: BTreeSet<i16> = rows.iter().map(|(shard, _)| *shard).collect();
        let marks: Vec<(i16, Mark)> =
            shards.into_iter().filter_map(|shard| self.marks.get(&shard).map(|mark| (shard, mark.clone()))).collect();
        mark::settle(&mut self.session, self.broker.stream_created(), &rows, &marks).await?;
        for (shard, mark) in marks {
            self.plan.status.owns(shard, Some(mark));
        }
        Ok(())
    }

    /// Learns the last messages of these aggregates, where they are not known and are the journal's.
    pub async fn look_up(&mut self, mut wanted: HashSet<AggregateKey>) -> Result<(), Broken> {
        wanted.retain(|key| !self.tips.contains_key(key));
        if wanted.is_empty() {
            return Ok(());
        }
        let seen = self.session.keep_while(self.broker.last_of(wanted)).await??;
        let found: Vec<(AggregateKey, Stored)> =
            seen.into_iter().filter_map(|(key, last)| last.event().map(|stored| (key, stored))).collect();
        let versions: Vec<(AggregateKey, u64)> = found.iter().map(|(key, stored)| (*key, stored.version)).collect();
        let journal = journal_ids(&mut self.session, &versions).await?;
        for ((key, stored), journal) in found.into_iter().zip(journal) {
            // Any other is looked at once more on its own, and judged there.
            if journal == Some(stored.event_id) {
                self.remember(key, stored);
            }
        }
        Ok(())
    }

    /// Makes sure that the stream holds one event, or says why not.
    pub async fn resolve(&mut self, event: &Event, mut naming: Naming) -> Result<Outcome, Broken> {
        let subject = event.key.subject();
        for _ in 0..TRIES {
            self.session.ping_if_due().await?;
            let last = self.broker.last(&subject).await?;
            let journal = match last {
                Last::Event(last) => journal_ids(&mut self.session, &[(event.key, last.version)]).await?.pop().flatten(),
                Last::Nothing | Last::Foreign { .. } => None,
            };
            let expected = match next_step(event.version, last, journal) {
                Step::Publish { expected } => expected,
                Step::FillGap { after, expected } => {
                    if let Some(outcome) = self.fill_gap(event, after, expected).await? {
                        return Ok(outcome);
                    }
                    continue;
                }
                Step::AlreadyThere(stored) => {
                    self.remember(event.key, stored);
                    return Ok(Outcome::Stored(stored));
                }
                Step::Diverged(divergence) => return Ok(Outcome::Aside { reason: divergence.to_string(), diverged: true }),
            };
            match self.session.keep_while(self.broker.publish_one(event, expected, naming)).await?? {
                Answer::Stored { sequence } => return Ok(Outcome::Stored(self.one_stored(event, sequence)?)),
                Answer::Contradicted => {}
                Answer::Duplicate => naming = Naming::Again,
                Answer::Refused(reason) => return Ok(Outcome::Refused(reason)),
                Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
            }
        }
        Ok(Outcome::Aside { reason: format!("somebody else keeps publishing to {subject}"), diverged: false })
    }

    /// Publishes the versions between what the stream has and this event from the journal, as far as the broker takes them.
    /// Returns what becomes of the event if it cannot be done.
    async fn fill_gap(&mut self, event: &Event, mut after: u64, mut expected: u64) -> Result<Option<Outcome>, Broken> {
        // A row that committed late leaves a gap as well; a loss leaves others that nobody would come across.
        self.check_nothing_lost().await?;
        info!(aggregate.name = %event.key.kind, aggregate.id = %event.key.id, after, before = event.version, "Filling a gap of {} from the journal", event.key);
        while after + 1 < event.version {
            let missing = from_journal(&mut self.session, event.key, after, event.version).await?;
            let mut bytes = 0;
            let mut together = Vec::with_capacity(missing.len());
            for event in missing {
                bytes += event.body.len();
                let first = together.is_empty();
                if event.version != after + 1
                    || !(first || i64::try_from(bytes).is_ok_and(|bytes| bytes <= self.pace.batch_bytes))
                {
                    break;
                }
                after = event.version;
                together.push((event, first.then_some(expected)));
            }
            if together.is_empty() {
                let reason = format!("the journal lacks version {}", after + 1);
                return Ok(Some(Outcome::Aside { reason, diverged: false }));
            }
            match self.session.keep_while(self.broker.publish(&together, Naming::Again)).await?? {
                Answer::Stored { sequence } => {
                    self.all_stored(&together, sequence)?;
                    expected = sequence;
                }
                Answer::Contradicted | Answer::Duplicate => return Ok(None),
                Answer::Refused(reason) => return Ok(Some(Outcome::Refused(reason))),
                Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
            }
        }
        Ok(None)
    }
}
