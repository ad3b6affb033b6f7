//! The events that were handed to us and not yet answered.

use std::collections::HashMap;

use anyhow::Context as _;
use async_nats::{
    Client, Subject,
    jetstream::{AckKind, Message, consumer::PullConsumer},
};
use tokio::time::{Duration, timeout};

use crate::delivery::Delivery;

/// While the connection is lost the client keeps what it is to send to itself, and at some point takes no more.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(3);

/// Where each event is answered, by its sequence in the stream.
#[derive(Debug)]
pub struct Open {
    client: Client,
    /// The broker hands out no more than this, to all processes together.
    limit: usize,
    answers: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    reply: Subject,
    event_id: String,
}

impl Open {
    pub fn new(client: Client, consumer: &PullConsumer) -> Self {
        let limit = usize::try_from(consumer.cached_info().config.max_ack_pending).unwrap_or(usize::MAX);
        Self { client, limit, answers: HashMap::new() }
    }

    /// Takes a message. One that came again is answered where it came last, but is no second event: `None`.
    pub fn receive(&mut self, message: Message) -> Option<Delivery> {
        let (delivery, reply) = Delivery::read(message)?;
        let answer = Answer { reply, event_id: delivery.event_id() };
        let before = self.answers.insert(delivery.sequence, answer);
        // A broker that lost its last messages uses their sequences again.
        before.is_none_or(|before| before.event_id != delivery.event_id()).then_some(delivery)
    }

    /// Whether the broker cannot hand out more before some are answered.
    pub fn is_full(&self) -> bool {
        self.answers.len() >= self.limit
    }

    /// At most this many may wait for another try: a queue full of them would let nothing else come.
    pub fn waiting_limit(&self) -> usize {
        (self.limit / 4).max(1)
    }

    pub async fn ack(&mut self, sequence: u64) -> anyhow::Result<()> {
        match self.answers.remove(&sequence) {
            Some(answer) => self.send(answer.reply, AckKind::Ack).await,
            None => Ok(()),
        }
    }

    /// Asks for more time for all of them.
    pub async fn in_progress(&self) -> anyhow::Result<()> {
        for answer in self.answers.values() {
            self.send(answer.reply.clone(), AckKind::Progress).await?;
        }
        Ok(())
    }

    /// Gives everything back at once, and tells which events that were.
    pub async fn give_back(&mut self) -> anyhow::Result<Vec<u64>> {
        let answers = std::mem::take(&mut self.answers);
        let mut given_back = Vec::with_capacity(answers.len());
        for (sequence, answer) in answers {
            self.send(answer.reply, AckKind::Nak(None)).await?;
            given_back.push(sequence);
        }
        timeout(TAKEN_WITHIN, self.client.flush()).await.context("the broker does not answer")??;
        Ok(given_back)
    }

    async fn send(&self, reply: Subject, kind: AckKind) -> anyhow::Result<()> {
        let sent = timeout(TAKEN_WITHIN, self.client.publish(reply, kind.into())).await;
        sent.context("the connection to the broker takes no answers")?.context("an event could not be answered")
    }
}
