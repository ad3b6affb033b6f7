//! Publishes what a lane has claimed: as much as possible in one batch, the rest one by one, looking first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use events::AggregateKey;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::{debug, info};

use super::Broken;
use super::batch::{Sorted, sort};
use super::claim::{BATCH_BYTES, Event, from_journal, journal_ids};
use super::lane::Lane;
use super::mark::{self, Mark};
use super::publish::{Answer, Naming};
use super::resolve::{Last, Step, Stored, next_step};

/// Looks at the subject and acts; more often than this means that somebody else publishes to it all the time.
const TRIES: u32 = 5;

/// Subjects that are looked at side by side.
const LOOKS_AT_ONCE: usize = 64;

/// Rows that can be deleted, and what proves it.
#[derive(Debug, Default)]
pub struct Acknowledged {
    pub rows: Vec<(i16, i64)>,
    /// By shard, the newest.
    pub marks: BTreeMap<i16, Mark>,
}

impl Acknowledged {
    pub fn mark(&mut self, event: &Event, stored: Stored) {
        let mark = Mark { key: event.key, stored };
        let newest = self.marks.entry(event.shard()).or_insert(mark);
        if newest.stored.sequence <= stored.sequence {
            *newest = mark;
        }
    }
}

/// What became of one event.
pub enum Outcome {
    Stored(Stored),
    Aside { reason: String, diverged: bool },
}

impl Lane<'_> {
    /// Publishes events; while they are on their way, deletes what was acknowledged before and claims the next ones, if `ahead`.
    pub async fn ship(&mut self, mut events: Vec<Event>, mut ahead: bool) -> Result<Option<Vec<Event>>, Broken> {
        let mut next = None;
        while !events.is_empty() {
            // They may have been claimed before their aggregate was set aside.
            events.retain(|event| !self.is_aside(&event.key));
            let Sorted { together, there, mut alone } = sort(events, &self.tips);
            for (event, stored) in there {
                self.acknowledge(&event, stored);
            }
            if !together.is_empty() {
                let (answer, claimed) = self.publish_while_settling(&together, ahead).await?;
                next = next.or(claimed);
                ahead = false;
                match answer {
                    Answer::Stored { sequence } => {
                        for (event, stored) in self.all_stored(&together, sequence)? {
                            self.acknowledge(event, stored);
                        }
                    }
                    Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
                    Answer::Contradicted | Answer::Duplicate | Answer::Refused(_) => {
                        debug!(events = together.len(), ?answer, "Resolving a batch one by one");
                        alone.splice(0..0, together.into_iter().map(|(event, _)| event));
                    }
                }
            }
            // The first of each aggregate is looked at on its own; once that is stored, the others follow it together.
            let mut first = HashSet::new();
            events = Vec::new();
            for event in alone {
                if !first.insert(event.key) {
                    events.push(event);
                    continue;
                }
                match self.resolve(&event, Naming::Own).await? {
                    Outcome::Stored(stored) => self.acknowledge(&event, stored),
                    Outcome::Aside { reason, diverged } => self.set_aside(event.key, event.shard(), reason, diverged),
                }
            }
        }
        Ok(next)
    }

    /// The session's work and the broker's go on side by side: that is most of the relay's speed.
    async fn publish_while_settling(
        &mut self,
        together: &[(Event, Option<u64>)],
        ahead: bool,
    ) -> Result<(Answer, Option<Vec<Event>>), Broken> {
        let broker = Arc::clone(&self.broker);
        let mut publishing = std::pin::pin!(broker.publish(together, Naming::Own));
        let mut answer = None;
        let next = {
            let mut working = std::pin::pin!(async {
                self.settle().await?;
                if !ahead {
                    return Ok::<_, Broken>(None);
                }
                let in_flight: HashSet<AggregateKey> = together.iter().map(|(event, _)| event.key).collect();
                Ok(Some(self.claim(&in_flight).await?))
            });
            loop {
                tokio::select! {
                    answered = &mut publishing, if answer.is_none() => answer = Some(answered?),
                    done = &mut working => break done?,
                }
            }
        };
        let answer = match answer {
            Some(answer) => answer,
            None => self.session.keep_while(publishing).await??,
        };
        Ok((answer, next))
    }

    /// A batch is stored in one piece: its last sequence gives all the others.
    pub fn all_stored<'e>(
        &mut self,
        together: &'e [(Event, Option<u64>)],
        last: u64,
    ) -> Result<Vec<(&'e Event, Stored)>, Broken> {
        let first = (last + 1).saturating_sub(together.len() as u64);
        together.iter().zip(first..).map(|((event, _), sequence)| Ok((event, self.one_stored(event, sequence)?))).collect()
    }

    fn one_stored(&mut self, event: &Event, sequence: u64) -> Result<Stored, Broken> {
        // Sequences only rise, unless the broker lost the end of the stream and gives them again.
        if sequence <= self.newest {
            return Err(Broken::Waiting(format!("the stream went back from sequence {} to {sequence}", self.newest)));
        }
        self.newest = sequence;
        self.plan.metrics.published();
        let stored = Stored { version: event.version, event_id: event.id, sequence };
        self.remember(event.key, stored);
        Ok(stored)
    }

    fn acknowledge(&mut self, event: &Event, stored: Stored) {
        if !self.aside.is_empty() && self.aside.remove(&event.key).is_some() {
            self.plan.status.taken_back(&event.key);
        }
        self.acknowledged.rows.push((event.shard(), event.seq));
        self.acknowledged.mark(event, stored);
    }

    /// Deletes what was acknowledged from the outbox.
    pub async fn settle(&mut self) -> Result<(), Broken> {
        if self.acknowledged.rows.is_empty() {
            return Ok(());
        }
        let Acknowledged { rows, marks } = std::mem::take(&mut self.acknowledged);
        let marks: Vec<(i16, Mark)> = marks.into_iter().collect();
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
        let broker = &self.broker;
        let looking = stream::iter(wanted)
            .map(async |key| Ok::<_, Broken>((key, broker.last(&key.subject()).await?)))
            .buffer_unordered(LOOKS_AT_ONCE)
            .try_collect();
        let seen: Vec<(AggregateKey, Last)> = self.session.keep_while(looking).await??;
        let found: Vec<(AggregateKey, Stored)> = seen
            .into_iter()
            .filter_map(|(key, last)| match last {
                Last::Event(stored) => Some((key, stored)),
                Last::Nothing | Last::Foreign { .. } => None,
            })
            .collect();
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
        let aside = |reason| Ok(Outcome::Aside { reason, diverged: false });
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
                    if let Some(reason) = self.fill_gap(event, after, expected).await? {
                        return aside(reason);
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
                Answer::Refused(reason) => return aside(reason),
                Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
            }
        }
        aside(format!("somebody else keeps publishing to {subject}"))
    }

    /// Publishes the versions between what the stream has and this event from the journal, as far as the broker takes them.
    /// Returns why it cannot be done.
    async fn fill_gap(&mut self, event: &Event, mut after: u64, mut expected: u64) -> Result<Option<String>, Broken> {
        info!(aggregate.name = %event.key.aggregate, aggregate.id = %event.key.id, after, before = event.version, "Filling a gap of {} from the journal", event.key);
        while after + 1 < event.version {
            let missing = from_journal(&mut self.session, event.key, after, event.version).await?;
            let mut bytes = 0;
            let mut together = Vec::with_capacity(missing.len());
            for event in missing {
                bytes += event.body.len();
                let first = together.is_empty();
                if event.version != after + 1 || !(first || i64::try_from(bytes).is_ok_and(|bytes| bytes <= BATCH_BYTES)) {
                    break;
                }
                after = event.version;
                together.push((event, first.then_some(expected)));
            }
            if together.is_empty() {
                return Ok(Some(format!("the journal lacks version {}", after + 1)));
            }
            match self.session.keep_while(self.broker.publish(&together, Naming::Again)).await?? {
                Answer::Stored { sequence } => {
                    self.all_stored(&together, sequence)?;
                    expected = sequence;
                }
                Answer::Contradicted | Answer::Duplicate => return Ok(None),
                Answer::Refused(reason) => return Ok(Some(reason)),
                Answer::Waiting(reason) => return Err(Broken::Waiting(reason)),
            }
        }
        Ok(None)
    }
}
