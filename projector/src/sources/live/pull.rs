//! Pulls events from a durable consumer: one pull request at a time, on an inbox of its own.
//!
//! The client's own streams are not used, because closing one loses the events that were handed out and not yet read, or are still
//! under way: they would be redelivered only after `ack_wait`. Here a request is awaited to its end, and everything can be given back.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{
    StatusCode, Subject, Subscriber,
    jetstream::{
        self,
        consumer::{PullConsumer, pull::BatchConfig},
    },
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::unacknowledged::CLIENT_TIMEOUT;

/// How long a request stays open at the broker, which then reports its end. A stop or a hold waits for that.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// How long after its end a request counts as lost, with a connection or a server, if the broker did not report the end.
const SILENCE: Duration = Duration::from_secs(2);

/// How the reply subjects of events begin.
const ACK_PREFIX: &str = "$JS.ACK.";

/// What came on the inbox.
#[derive(Debug)]
pub enum Pulled {
    Event(Box<jetstream::Message>),
    /// The request is over; another one may be made.
    Over,
    /// The consumer is gone.
    Gone(String),
}

#[derive(Debug)]
pub struct Pull {
    consumer: PullConsumer,
    context: jetstream::Context,
    inbox: Subject,
    subscriber: Subscriber,
    /// How many of the requested events are still to come.
    wanted: usize,
    silent_at: Instant,
}

impl Pull {
    pub async fn open(consumer: &PullConsumer, context: &jetstream::Context) -> anyhow::Result<Self> {
        let inbox = Subject::from(context.client().new_inbox());
        let subscriber = context.client().subscribe(inbox.clone()).await?;
        Ok(Self { consumer: consumer.clone(), context: context.clone(), inbox, subscriber, wanted: 0, silent_at: Instant::now() })
    }

    /// Whether a request is open.
    pub fn is_open(&self) -> bool {
        self.wanted > 0
    }

    pub async fn request_batch(&mut self, events: usize, bytes: usize) -> anyhow::Result<()> {
        let request = BatchConfig { batch: events, max_bytes: bytes, expires: Some(OPEN_FOR), ..BatchConfig::default() };
        self.request(request, OPEN_FOR).await
    }

    async fn request(&mut self, request: BatchConfig, open_for: Duration) -> anyhow::Result<()> {
        self.wanted = request.batch;
        self.silent_at = Instant::now() + open_for + SILENCE;
        let sent = timeout(CLIENT_TIMEOUT, self.consumer.request_batch(request, self.inbox.clone())).await;
        Ok(sent.context("the connection to the broker takes no requests")??)
    }

    /// Waits for whatever comes next. Nothing is lost if this is not awaited to its end.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let Ok(message) = timeout_at(self.silent_at, self.subscriber.next()).await else {
                self.wanted = 0;
                return Pulled::Over;
            };
            let Some(message) = message else {
                return Pulled::Gone("the connection to the broker was closed".to_owned());
            };
            self.silent_at = self.silent_at.max(Instant::now() + SILENCE);
            // Only an event has a reply subject for acks, whatever headers its publisher gave it.
            let is_event = message.reply.as_ref().is_some_and(|reply| reply.starts_with(ACK_PREFIX));
            let status = match message.status {
                Some(status) if !is_event && status != StatusCode::OK => status,
                _ => {
                    self.wanted = self.wanted.saturating_sub(1);
                    return Pulled::Event(Box::new(jetstream::Message { message, context: self.context.clone() }));
                }
            };
            let description = message.description.unwrap_or_default();
            // This comes behind the last event of a request that got as many as it wanted: by now another one may be open.
            if description.contains("Batch Completed") {
                continue;
            }
            self.wanted = 0;
            // Every other status ends only the request: it timed out, it reached its limit of bytes, a leader changed, the server stops.
            if status == StatusCode::NO_RESPONDERS || description.contains("Consumer Deleted") {
                return Pulled::Gone(format!("the broker has no such consumer ({status} {description})"));
            }
            return Pulled::Over;
        }
    }

    /// Pulls one event, if there is one within the time.
    pub async fn one(&mut self, within: Duration) -> anyhow::Result<Option<jetstream::Message>> {
        let request = BatchConfig { batch: 1, expires: Some(within), ..BatchConfig::default() };
        self.request(request, within).await?;
        match self.next().await {
            Pulled::Event(message) => Ok(Some(*message)),
            Pulled::Over => Ok(None),
            Pulled::Gone(why) => anyhow::bail!(why),
        }
    }

    /// Waits for the end of the open request, and returns the events that still came. From then on the broker hands out nothing here.
    pub async fn finish(&mut self) -> Vec<jetstream::Message> {
        let mut rest = Vec::new();
        while self.is_open() {
            match self.next().await {
                Pulled::Event(message) => rest.push(*message),
                // If the connection or the consumer is gone, the events are redelivered by themselves.
                Pulled::Over | Pulled::Gone(_) => break,
            }
        }
        rest
    }
}
