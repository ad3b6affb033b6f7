//! Asks the broker for events, one request at a time, on an inbox of its own.
//!
//! The client's own streams are not used, because closing one loses what was handed out and not yet read, or still on its way:
//! it would come again only after `ack_wait`. Here a request is waited for to its end, and everything can be given back.

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

use super::open::TAKEN_WITHIN;

/// How long a request stays open at the broker, which then says that it is over. A stop or a hold waits for that.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// A request of which no word came for this long after its end was lost, with a connection or a server.
const SILENCE: Duration = Duration::from_secs(2);

/// How the subjects begin at which events are answered.
const ANSWERED_AT: &str = "$JS.ACK.";

/// What came.
#[derive(Debug)]
pub enum Pulled {
    Event(Box<jetstream::Message>),
    /// The request is over; ask again.
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
    /// How many of those asked for are still to come.
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
    pub fn is_asking(&self) -> bool {
        self.wanted > 0
    }

    pub async fn ask(&mut self, events: usize, bytes: usize) -> anyhow::Result<()> {
        let request = BatchConfig { batch: events, max_bytes: bytes, expires: Some(OPEN_FOR), ..BatchConfig::default() };
        self.request(request, OPEN_FOR).await
    }

    async fn request(&mut self, request: BatchConfig, open_for: Duration) -> anyhow::Result<()> {
        self.wanted = request.batch;
        self.silent_at = Instant::now() + open_for + SILENCE;
        let sent = timeout(TAKEN_WITHIN, self.consumer.request_batch(request, self.inbox.clone())).await;
        Ok(sent.context("the connection to the broker takes no requests")??)
    }

    /// Whatever comes next. Nothing is lost if it is not waited for to the end.
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
            // Only an event can be answered, whatever headers its publisher gave it.
            let is_event = message.reply.as_ref().is_some_and(|reply| reply.starts_with(ANSWERED_AT));
            let status = match message.status {
                Some(status) if !is_event && status != StatusCode::OK => status,
                _ => {
                    self.wanted = self.wanted.saturating_sub(1);
                    return Pulled::Event(Box::new(jetstream::Message { message, context: self.context.clone() }));
                }
            };
            let told = message.description.unwrap_or_default();
            // Of a request that brought as many as it wanted, told behind the last of them: by now another one may be open.
            if told.contains("Batch Completed") {
                continue;
            }
            self.wanted = 0;
            // Others end the request only: its time is over, a batch is as large as it may be, a leader changed, the server stops.
            if status == StatusCode::NO_RESPONDERS || told.contains("Consumer Deleted") {
                return Pulled::Gone(format!("the broker has no such consumer ({status} {told})"));
            }
            return Pulled::Over;
        }
    }

    /// One event, if there is one within the time.
    pub async fn one(&mut self, within: Duration) -> anyhow::Result<Option<jetstream::Message>> {
        let request = BatchConfig { batch: 1, expires: Some(within), ..BatchConfig::default() };
        self.request(request, within).await?;
        match self.next().await {
            Pulled::Event(message) => Ok(Some(*message)),
            Pulled::Over => Ok(None),
            Pulled::Gone(why) => anyhow::bail!(why),
        }
    }

    /// Gives out what still comes for the request that is open. From then on the broker hands out nothing here.
    pub async fn finish(&mut self) -> Vec<jetstream::Message> {
        let mut rest = Vec::new();
        while self.is_asking() {
            match self.next().await {
                Pulled::Event(message) => rest.push(*message),
                // With the connection or the consumer what was handed out is lost too, and comes again by itself.
                Pulled::Over | Pulled::Gone(_) => break,
            }
        }
        rest
    }
}
