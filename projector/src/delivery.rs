//! An event as the broker hands it out, and those of one aggregate together.

use std::collections::{HashMap, hash_map::Entry};

use anyhow::{Context as _, bail};
use async_nats::{HeaderMap, Subject, jetstream};
use bytes::Bytes;
#[cfg(test)]
use events::Recorded;
use events::{AggregateKey, Event, envelope::header};
use views::listing_page::VERSION_MAX;

/// One message that was handed out. Its body is not looked at before it is its turn.
#[derive(Debug)]
pub struct Delivery {
    /// Where it stands in the stream: what it is known by until it is answered.
    pub sequence: u64,
    /// How often it was handed out, to whomever.
    pub delivered: u64,
    /// How many the broker had left for us after it.
    pub pending: u64,
    /// Which aggregate in which version; `None` if it does not say.
    target: Option<(AggregateKey, u64)>,
    message: async_nats::Message,
}

impl Delivery {
    /// Takes a message with the subject that answers it; `None` for one that does not come from a stream.
    pub fn read(message: jetstream::Message) -> Option<(Self, Subject)> {
        let info = message.info().ok()?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        let delivered = info.delivered.cast_unsigned();
        let message = message.message;
        let reply = message.reply.clone()?;
        let version = message.headers.as_ref().and_then(|headers| headers.get(header::AGGREGATE_VERSION)?.as_str().parse().ok());
        let target = AggregateKey::from_subject(&message.subject).zip(version);
        Some((Self { sequence, delivered, pending, target, message }, reply))
    }

    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    pub fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The event's id; of one without, its place in the stream.
    pub fn event_id(&self) -> String {
        self.header(header::ID).map_or_else(|| format!("sequence-{}", self.sequence), str::to_owned)
    }

    /// How much it adds to a batch.
    pub fn size(&self) -> usize {
        self.message.payload.len()
    }

    /// The aggregate that it is about, if it says so.
    pub fn aggregate(&self) -> Option<AggregateKey> {
        self.target.map(|(key, _)| key)
    }

    /// Reads the event.
    pub fn decode(&self) -> anyhow::Result<Event> {
        let key =
            AggregateKey::from_subject(self.subject()).with_context(|| format!("{} is no event's subject", self.subject()))?;
        let event = Event::decode(key, |name| self.header(name), self.payload().clone())?;
        if event.meta.version == 0 || event.meta.version > VERSION_MAX {
            bail!("version {} is none that every store can compare", event.meta.version);
        }
        Ok(event)
    }
}

/// The events of one aggregate in a batch, the newest first. Only the newest is applied; the others are answered when it was,
/// and if it never can be, the next older one is applied (PROTOCOL P1).
#[derive(Debug)]
pub struct Chain {
    head: Delivery,
    superseded: Vec<Delivery>,
}

impl Chain {
    fn new(head: Delivery) -> Self {
        Self { head, superseded: Vec::new() }
    }

    pub fn head(&self) -> &Delivery {
        &self.head
    }

    pub fn len(&self) -> usize {
        1 + self.superseded.len()
    }

    /// The newest event, and those that it supersedes.
    pub fn split(self) -> (Delivery, Vec<Delivery>) {
        (self.head, self.superseded)
    }

    pub fn sequences(&self) -> impl Iterator<Item = u64> {
        self.deliveries().map(|delivery| delivery.sequence)
    }

    fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        std::iter::once(&self.head).chain(&self.superseded)
    }

    fn add(&mut self, mut delivery: Delivery) {
        let age = |delivery: &Delivery| delivery.target.map(|(_, version)| version);
        if age(&delivery) > age(&self.head) {
            std::mem::swap(&mut self.head, &mut delivery);
        }
        let at = self.superseded.partition_point(|held| age(held) > age(&delivery));
        self.superseded.insert(at, delivery);
    }
}

/// Puts the events of each aggregate together. One that does not say what it is about stands alone.
pub fn coalesce(deliveries: impl IntoIterator<Item = Delivery>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut places: HashMap<AggregateKey, usize> = HashMap::new();
    for delivery in deliveries {
        match delivery.target.map(|(key, _)| places.entry(key)) {
            Some(Entry::Occupied(place)) => chains[*place.get()].add(delivery),
            Some(Entry::Vacant(place)) => {
                place.insert(chains.len());
                chains.push(Chain::new(delivery));
            }
            None => chains.push(Chain::new(delivery)),
        }
    }
    chains
}

#[cfg(test)]
impl Delivery {
    /// The event as the broker would hand it out.
    pub fn of(sequence: u64, recorded: Recorded) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &recorded.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        let message = async_nats::Message {
            subject: recorded.key.subject().into(),
            reply: None,
            payload: recorded.body,
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        Self { sequence, delivered: 1, pending: 0, target: Some((recorded.key, recorded.version)), message }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn delivery(sequence: u64, target: Option<(u128, u64)>) -> Delivery {
        let message = async_nats::Message {
            subject: "listings.events.listing.x".into(),
            reply: None,
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let target = target.map(|(id, version)| (AggregateKey::listing(Uuid::from_u128(id)), version));
        Delivery { sequence, delivered: 1, pending: 0, target, message }
    }

    #[test]
    fn the_newest_version_leads_its_chain_whatever_the_order() {
        let of = |sequence, id, version| delivery(sequence, Some((id, version)));
        let chains = coalesce([of(1, 1, 2), of(2, 2, 1), of(3, 1, 4), of(4, 1, 3), of(5, 1, 1)]);
        let sequences: Vec<Vec<u64>> = chains.iter().map(|chain| chain.sequences().collect()).collect();
        assert_eq!(sequences, [vec![3, 4, 1, 5], vec![2]]);
    }

    #[test]
    fn what_is_about_nothing_stands_alone() {
        assert_eq!(coalesce([delivery(1, None), delivery(2, None)]).len(), 2);
    }
}
