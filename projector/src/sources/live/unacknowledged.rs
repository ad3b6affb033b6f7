//! The events that the broker handed to this process and that were not acknowledged yet.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use async_nats::{
    Client, Subject,
    jetstream::{AckKind, Message, consumer::PullConsumer},
};
use tokio::time::timeout;

use crate::source_event::SourceEvent;

/// Timeout of handing something to the client. While the connection is lost the client buffers, and at some point takes no more.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where each event is acknowledged, by its sequence in the stream.
#[derive(Debug)]
pub struct Unacknowledged {
    client: Client,
    /// `max_ack_pending`: the broker hands out no more than this to all processes together.
    limit: usize,
    replies: HashMap<u64, ReplySubject>,
    /// How many events the broker had left when it handed out the last one.
    pending: u64,
}

#[derive(Debug)]
struct ReplySubject {
    subject: Subject,
    event_id: String,
}

impl Unacknowledged {
    pub fn new(client: Client, consumer: &PullConsumer) -> Self {
        let limit = usize::try_from(consumer.cached_info().config.max_ack_pending).unwrap_or(usize::MAX);
        Self { client, limit, replies: HashMap::new(), pending: 0 }
    }

    /// Takes a message. A redelivery of an event that is here already replaces its reply subject and is no second event: `None`.
    pub fn receive(&mut self, message: Message) -> Option<SourceEvent> {
        let info = message.info().ok()?;
        let (sequence, deliveries) = (info.stream_sequence, info.delivered.cast_unsigned());
        self.pending = info.pending;
        let message = message.message;
        let subject = message.reply.clone()?;
        let event = SourceEvent::new(sequence, deliveries, message);
        let reply = ReplySubject { subject, event_id: event.event_id() };
        let before = self.replies.insert(sequence, reply);
        // A broker that lost its last messages gives their sequences to others.
        before.is_none_or(|before| before.event_id != event.event_id()).then_some(event)
    }

    /// Whether more events are on their way: the broker has some, and may hand them out.
    pub fn expects_more(&self) -> bool {
        self.pending > 0 && self.replies.len() < self.limit
    }

    /// At most this many events may wait for another try: if they took all places of `max_ack_pending`, nothing else would be handed
    /// out (PROTOCOL P4).
    pub fn retry_limit(&self) -> usize {
        (self.limit / 4).max(1)
    }

    pub async fn ack(&mut self, sequence: u64) -> anyhow::Result<()> {
        self.answer(sequence, AckKind::Ack).await
    }

    /// Gives one event back, to be handed out again after the delay, to whichever process.
    pub async fn nak_later(&mut self, sequence: u64, delay: Duration) -> anyhow::Result<()> {
        self.answer(sequence, AckKind::Nak(Some(delay))).await
    }

    async fn answer(&mut self, sequence: u64, kind: AckKind) -> anyhow::Result<()> {
        match self.replies.remove(&sequence) {
            Some(reply) => self.send(reply.subject, kind).await,
            None => Ok(()),
        }
    }

    /// Restarts `ack_wait` for all events.
    pub async fn in_progress(&self) -> anyhow::Result<()> {
        for reply in self.replies.values() {
            self.send(reply.subject.clone(), AckKind::Progress).await?;
        }
        Ok(())
    }

    /// Gives all events back, to be handed out again at once, and returns their sequences.
    pub async fn nak_all(&mut self) -> anyhow::Result<Vec<u64>> {
        let replies = std::mem::take(&mut self.replies);
        let mut given_back = Vec::with_capacity(replies.len());
        for (sequence, reply) in replies {
            self.send(reply.subject, AckKind::Nak(None)).await?;
            given_back.push(sequence);
        }
        timeout(CLIENT_TIMEOUT, self.client.flush()).await.context("the broker does not answer")??;
        Ok(given_back)
    }

    async fn send(&self, reply: Subject, kind: AckKind) -> anyhow::Result<()> {
        let sent = timeout(CLIENT_TIMEOUT, self.client.publish(reply, kind.into())).await;
        sent.context("the connection to the broker takes no acks")?.context("an ack could not be sent")
    }
}
