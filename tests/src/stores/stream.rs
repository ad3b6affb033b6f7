//! Reads the streams of events and of dead letters, and publishes messages that bypass the relay.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use events::envelope::header;
use events::{AggregateKey, Recorded};
use futures_util::StreamExt as _;

use crate::marketplace::Marketplace;
use crate::settle::EVENTS;

const DEAD_LETTERS: &str = "LISTINGS_DLQ";
/// Messages per fetch request.
const FETCH_SIZE: usize = 500;

/// A message as the stream stores it.
#[derive(Debug, Clone)]
pub struct StreamMessage {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl StreamMessage {
    /// The message as the relay would publish it. It has no sequence yet.
    #[must_use]
    pub fn from_event(recorded: &Recorded) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &recorded.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        Self { sequence: 0, subject: recorded.key.subject(), headers, body: recorded.body.clone() }
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Returns the aggregate that the subject names.
    #[must_use]
    pub fn key(&self) -> Option<AggregateKey> {
        AggregateKey::from_subject(&self.subject)
    }

    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.header(header::AGGREGATE_VERSION)?.parse().ok()
    }

    /// Returns the event's id. The message id of an event that a repair has published again has a suffix after a slash, which is
    /// left out.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.header(header::MESSAGE_ID)?.split('/').next()
    }
}

impl Marketplace {
    /// Returns all events in the stream, oldest first.
    pub async fn stream(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(EVENTS, DeliverPolicy::All).await
    }

    /// Returns the last event of each aggregate, as a rebuild reads them.
    pub async fn stream_last_per_subject(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(EVENTS, DeliverPolicy::LastPerSubject).await
    }

    /// Returns the versions of one aggregate that are in the stream, in stream order.
    pub async fn versions_in_stream(&self, key: AggregateKey) -> anyhow::Result<Vec<u64>> {
        let all = self.stream().await?;
        Ok(all.iter().filter(|message| message.key() == Some(key)).filter_map(StreamMessage::version).collect())
    }

    /// Returns all dead letters, oldest first.
    pub async fn dead_letters(&self) -> anyhow::Result<Vec<StreamMessage>> {
        self.messages(DEAD_LETTERS, DeliverPolicy::All).await
    }

    /// Publishes a message unchanged, bypassing the relay: an old event again, or a poison message. The message id is left out,
    /// because the broker would discard a message with a known id as a duplicate.
    pub async fn inject(&self, message: &StreamMessage) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        // The other `Nats-` headers are left out too: an expected sequence, for example, would make the broker refuse the
        // message.
        for (name, values) in message.headers.iter().filter(|(name, _)| !name.to_string().to_lowercase().starts_with("nats-")) {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        self.publish(message.subject.clone(), headers, message.body.clone()).await
    }

    /// Publishes an event that is not in the journal, without a message id.
    pub async fn publish_event(&self, recorded: &Recorded) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in recorded.headers.iter().filter(|(name, _)| *name != header::MESSAGE_ID) {
            headers.insert(name.as_str(), value.as_str());
        }
        self.publish(recorded.key.subject(), headers, recorded.body.clone()).await
    }

    async fn publish(&self, subject: String, headers: HeaderMap, body: Bytes) -> anyhow::Result<()> {
        let ack = self.nats.jetstream().publish_with_headers(subject.clone(), headers, body).await?.await?;
        anyhow::ensure!(!ack.duplicate, "the broker discarded a message to {subject} as a duplicate");
        Ok(())
    }

    /// Fails unless there are exactly this many dead letters; the error lists them.
    pub(crate) async fn check_dead_letters(&self, expected: usize) -> anyhow::Result<()> {
        let dead_letters = self.dead_letters().await?;
        let describe =
            |message: &StreamMessage| format!("\n{} {}", message.subject, message.header("Dlq-Error").unwrap_or_default());
        let descriptions: String = dead_letters.iter().map(describe).collect();
        let count = dead_letters.len();
        anyhow::ensure!(count == expected, "expected {expected} dead letters, found {count}:{descriptions}");
        Ok(())
    }

    /// Reads a whole stream through a temporary consumer.
    async fn messages(&self, stream: &str, deliver_policy: DeliverPolicy) -> anyhow::Result<Vec<StreamMessage>> {
        let stream = self.nats.jetstream().get_stream(stream).await?;
        // The policy `LastPerSubject` requires a filter; this one matches every subject.
        let filter_subject = ">".to_owned();
        let config = pull::Config { deliver_policy, filter_subject, ack_policy: AckPolicy::None, ..pull::Config::default() };
        let mut consumer = stream.create_consumer(config).await?;
        let mut left = usize::try_from(consumer.cached_info().num_pending)?;
        let mut messages = Vec::with_capacity(left);
        while left > 0 {
            let mut batch = consumer.fetch().max_messages(FETCH_SIZE.min(left)).messages().await?;
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
