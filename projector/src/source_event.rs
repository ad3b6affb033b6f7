//! An event as its source hands it to an applier, and the events of one aggregate as one write.

use std::collections::{HashMap, hash_map::Entry};

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use bytes::Bytes;
#[cfg(test)]
use events::Recorded;
use events::{AggregateKey, Event, envelope::header};
use views::listing_page::VERSION_MAX;

/// One event of a source. Its body is decoded only when it is applied.
#[derive(Debug)]
pub struct SourceEvent {
    /// Its sequence in the stream: source and applier know it by this.
    pub sequence: u64,
    /// How often it was handed out so far, to whichever process.
    pub deliveries: u64,
    /// Aggregate and version, if subject and headers name them.
    target: Option<(AggregateKey, u64)>,
    message: async_nats::Message,
}

impl SourceEvent {
    pub fn new(sequence: u64, deliveries: u64, message: async_nats::Message) -> Self {
        let version = message.headers.as_ref().and_then(|headers| headers.get(header::AGGREGATE_VERSION)?.as_str().parse().ok());
        let target = AggregateKey::from_subject(&message.subject).zip(version);
        Self { sequence, deliveries, target, message }
    }

    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    pub fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    pub fn body(&self) -> &Bytes {
        &self.message.payload
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The event's id; `sequence-<n>` if it has none.
    pub fn event_id(&self) -> String {
        self.header(header::ID).map_or_else(|| format!("sequence-{}", self.sequence), str::to_owned)
    }

    /// Its share of a batch's limit, in bytes.
    pub fn size(&self) -> usize {
        self.message.payload.len()
    }

    /// The aggregate that it is about, if it says so.
    pub fn aggregate(&self) -> Option<AggregateKey> {
        self.target.map(|(key, _)| key)
    }

    fn version(&self) -> Option<u64> {
        self.target.map(|(_, version)| version)
    }

    pub fn decode(&self) -> anyhow::Result<Event> {
        let key = AggregateKey::from_subject(self.subject())
            .with_context(|| format!("{} is not the subject of an event", self.subject()))?;
        let event = Event::decode(key, |name| self.header(name), self.body().clone())?;
        if event.meta.version == 0 || event.meta.version > VERSION_MAX {
            bail!("version must be from 1 to 2^53, not {}", event.meta.version);
        }
        Ok(event)
    }
}

/// Events that are one write: of a state projection the events of one aggregate, newest first; of a ledger one event.
///
/// Only the newest is applied. The others are superseded as soon as it was; if it never can be applied, the next older one is
/// (PROTOCOL P1).
#[derive(Debug)]
pub struct EventGroup {
    head: SourceEvent,
    superseded: Vec<SourceEvent>,
}

impl EventGroup {
    pub fn single(head: SourceEvent) -> Self {
        Self { head, superseded: Vec::new() }
    }

    /// The event that is applied.
    pub fn head(&self) -> &SourceEvent {
        &self.head
    }

    pub fn len(&self) -> usize {
        1 + self.superseded.len()
    }

    /// The event that is applied, and those that it supersedes.
    pub fn split(self) -> (SourceEvent, Vec<SourceEvent>) {
        (self.head, self.superseded)
    }

    pub fn sequences(&self) -> impl Iterator<Item = u64> {
        std::iter::once(&self.head).chain(&self.superseded).map(|event| event.sequence)
    }

    fn add(&mut self, mut event: SourceEvent) {
        if event.version() > self.head.version() {
            std::mem::swap(&mut self.head, &mut event);
        }
        let at = self.superseded.partition_point(|older| older.version() > event.version());
        self.superseded.insert(at, event);
    }
}

/// Groups the events of each aggregate, for a state projection. An event that names no aggregate stands alone.
pub fn coalesce(events: impl IntoIterator<Item = SourceEvent>) -> Vec<EventGroup> {
    let mut groups: Vec<EventGroup> = Vec::new();
    let mut places: HashMap<AggregateKey, usize> = HashMap::new();
    for event in events {
        match event.aggregate().map(|key| places.entry(key)) {
            Some(Entry::Occupied(place)) => groups[*place.get()].add(event),
            Some(Entry::Vacant(place)) => {
                place.insert(groups.len());
                groups.push(EventGroup::single(event));
            }
            None => groups.push(EventGroup::single(event)),
        }
    }
    groups
}

/// Puts every event into a group of its own, those of one aggregate in the order of their versions, for a ledger.
pub fn in_version_order(events: impl IntoIterator<Item = SourceEvent>) -> Vec<EventGroup> {
    let mut events: Vec<SourceEvent> = events.into_iter().collect();
    events.sort_by_key(|event| event.target);
    events.into_iter().map(EventGroup::single).collect()
}

#[cfg(test)]
impl SourceEvent {
    /// The event as a source would hand it out.
    pub fn of(sequence: u64, recorded: Recorded) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &recorded.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        Self::new(sequence, 1, message(recorded.key.subject(), recorded.body, Some(headers)))
    }
}

/// An event without content.
#[cfg(test)]
pub fn event_with(sequence: u64, deliveries: u64) -> SourceEvent {
    SourceEvent::new(sequence, deliveries, message("x".to_owned(), Bytes::new(), None))
}

#[cfg(test)]
fn message(subject: String, payload: Bytes, headers: Option<HeaderMap>) -> async_nats::Message {
    async_nats::Message { subject: subject.into(), reply: None, payload, headers, status: None, description: None, length: 0 }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(sequence: u64, target: Option<(u128, u64)>) -> SourceEvent {
        let target = target.map(|(id, version)| (AggregateKey::listing(Uuid::from_u128(id)), version));
        SourceEvent { sequence, deliveries: 1, target, message: message("x".to_owned(), Bytes::new(), None) }
    }

    fn sequences(groups: &[EventGroup]) -> Vec<Vec<u64>> {
        groups.iter().map(|group| group.sequences().collect()).collect()
    }

    #[test]
    fn the_newest_version_leads_its_group_whatever_the_order() {
        let of = |sequence, id, version| event(sequence, Some((id, version)));
        let groups = coalesce([of(1, 1, 2), of(2, 2, 1), of(3, 1, 4), of(4, 1, 3), of(5, 1, 1)]);
        assert_eq!(sequences(&groups), [vec![3, 4, 1, 5], vec![2]]);
    }

    #[test]
    fn an_event_that_names_no_aggregate_stands_alone() {
        assert_eq!(coalesce([event(1, None), event(2, None)]).len(), 2);
    }

    #[test]
    fn a_ledger_gets_every_event_in_the_order_of_versions() {
        let of = |sequence, id, version| event(sequence, Some((id, version)));
        let groups = in_version_order([of(1, 1, 2), of(2, 2, 1), of(3, 1, 1), of(4, 1, 2)]);
        assert_eq!(sequences(&groups), [vec![3], vec![1], vec![4], vec![2]]);
    }
}
