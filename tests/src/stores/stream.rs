//! What the broker holds.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use events::envelope::header;
use events::{AggregateKey, Recorded};
use futures_util::StreamExt as _;

use crate::marketplace::Marketplace;
use crate::settle::EVENTS;

const DEAD_LETTERS: &str = "LISTINGS_DLQ";
/// Messages asked for at once.
const FETCH: usize = 500;

/// A message as the stream holds it.
#[derive(Debug, Clone)]
pub struct StreamMessage {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl StreamMessage {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The aggregate that the subject names.
    #[must_use]
    pub fn key(&self) -> Option<AggregateKey> {
        AggregateKey::from_subject(&self.subject)
    }

    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.header(header::AGGREGATE_VERSION)?.parse().ok()
    }

    /// The event's id; a message that was published again for a repair has more behind a slash.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.header(header::MESSAGE_ID)?.split('/').next()
    }
}

impl Marketplace {
    /// All events that the stream holds, oldest first.
    pub async fn stream(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(EVENTS, DeliverPolicy::All).await
    }

    /// The last event of each aggregate: what a rebuild reads.
    pub async fn stream_last_per_subject(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(EVENTS, DeliverPolicy::LastPerSubject).await
    }

    /// The versions that the stream holds of one aggregate, in the order in which it holds them.
    pub async fn versions_in_stream(&self, key: AggregateKey) -> anyhow::Result<Vec<u64>> {
        let all = self.stream().await?;
        Ok(all.iter().filter(|message| message.key() == Some(key)).filter_map(StreamMessage::version).collect())
    }

    /// All dead letters, oldest first.
    pub async fn dead_letters(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(DEAD_LETTERS, DeliverPolicy::All).await
    }

    /// Publishes a message as it is, past the relay: an old event that comes again, or one that no projection can read.
    pub async fn inject(&self, message: &StreamMessage) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        // The broker's own headers would make it a duplicate, or refuse it.
        for (name, values) in message.headers.iter().filter(|(name, _)| !name.to_string().to_lowercase().starts_with("nats-")) {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        let stored =
            self.nats.jetstream().publish_with_headers(message.subject.clone(), headers, message.body.clone()).await?.await?;
        anyhow::ensure!(!stored.duplicate, "the broker took {} for a duplicate", message.subject);
        Ok(())
    }

    /// Publishes an event that no command made.
    pub async fn publish_event(&self, recorded: &Recorded) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in recorded.headers.iter().filter(|(name, _)| *name != header::MESSAGE_ID) {
            headers.insert(name.as_str(), value.as_str());
        }
        let stored =
            self.nats.jetstream().publish_with_headers(recorded.key.subject(), headers, recorded.body.clone()).await?.await?;
        anyhow::ensure!(!stored.duplicate, "the broker took {} for a duplicate", recorded.key);
        Ok(())
    }

    pub(crate) async fn check_dead_letters(&self, expected: usize) -> anyhow::Result<()> {
        let letters = self.dead_letters().await?;
        let tell = |letter: &StreamMessage| format!("\n{} {}", letter.subject, letter.header("Dlq-Error").unwrap_or_default());
        let told: String = letters.iter().map(tell).collect();
        anyhow::ensure!(letters.len() == expected, "expected {expected} dead letters, found {}:{told}", letters.len());
        Ok(())
    }

    async fn messages(&self, stream: &str, deliver_policy: DeliverPolicy) -> anyhow::Result<Vec<StreamMessage>> {
        let stream = self.nats.jetstream().get_stream(stream).await?;
        // The last message of each subject is given only of subjects that were asked for.
        let filter_subject = ">".to_owned();
        let config = pull::Config { deliver_policy, filter_subject, ack_policy: AckPolicy::None, ..pull::Config::default() };
        let mut consumer = stream.create_consumer(config).await?;
        let mut left = usize::try_from(consumer.cached_info().num_pending)?;
        let mut messages = Vec::with_capacity(left);
        while left > 0 {
            let mut batch = consumer.fetch().max_messages(FETCH.min(left)).messages().await?;
            while let Some(message) = batch.next().await {
                let message = message.map_err(anyhow::Error::from_boxed)?;
                let sequence = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
                let (async_nats::Message { subject, headers, payload, .. }, _) = message.split();
                messages.push(StreamMessage {
                    sequence,
                    subject: subject.to_string(),
                    headers: headers.unwrap_or_default(),
                    body: payload,
                });
            }
            left = usize::try_from(consumer.info().await?.num_pending)?;
        }
        stream.delete_consumer(&consumer.cached_info().name).await?;
        Ok(messages)
    }
}
