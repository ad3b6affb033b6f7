//! Asks the broker for events, one request at a time, on an inbox of its own.
//!
//! The client's own streams are not used, because closing one loses what was handed out and not yet read: it would come
//! again only after `ack_wait`. Here the inbox is drained, and everything can be given back.

use std::time::Duration;

use async_nats::{
    StatusCode, Subject, Subscriber,
    jetstream::{
        self,
        consumer::{PullConsumer, pull::BatchConfig},
    },
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a request stays open at the broker.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// The broker says this often that an open request is still known to it.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After this long without a word the request was lost, with a connection or a server.
const SILENCE: Duration = Duration::from_secs(5);
/// What was on its way when the inbox was closed has arrived by then.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

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
        let request = BatchConfig {
            batch: events,
            max_bytes: bytes,
            expires: Some(OPEN_FOR),
            idle_heartbeat: HEARTBEAT,
            ..BatchConfig::default()
        };
        self.consumer.request_batch(request, self.inbox.clone()).await?;
        self.wanted = events;
        self.silent_at = Instant::now() + SILENCE;
        Ok(())
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
            self.silent_at = Instant::now() + SILENCE;
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.wanted = self.wanted.saturating_sub(1);
                    return Pulled::Event(Box::new(jetstream::Message { message, context: self.context.clone() }));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                    self.wanted = 0;
                    return Pulled::Over;
                }
                Some(status) => {
                    self.wanted = 0;
                    let told = message.description.unwrap_or_default();
                    // Others end the request only: a batch is as large as it may be, a leader changed, the server stops.
                    if status == StatusCode::NO_RESPONDERS || told.contains("Consumer Deleted") {
                        return Pulled::Gone(format!("the broker has no such consumer ({status} {told})"));
                    }
                    return Pulled::Over;
                }
            }
        }
    }

    /// One event, if there is one within the time.
    pub async fn one(&mut self, within: Duration) -> anyhow::Result<Option<jetstream::Message>> {
        let request = BatchConfig { batch: 1, expires: Some(within), ..BatchConfig::default() };
        self.consumer.request_batch(request, self.inbox.clone()).await?;
        self.silent_at = Instant::now() + within + SILENCE;
        match self.next().await {
            Pulled::Event(message) => Ok(Some(*message)),
            Pulled::Over => Ok(None),
            Pulled::Gone(why) => anyhow::bail!(why),
        }
    }

    /// Closes the inbox, and gives out what is still in it. From then on the broker hands out nothing here.
    pub async fn close(&mut self) -> Vec<jetstream::Message> {
        let mut rest = Vec::new();
        if self.subscriber.drain().await.is_ok() {
            let until_empty = async {
                while let Some(message) = self.subscriber.next().await {
                    if matches!(message.status, None | Some(StatusCode::OK)) {
                        rest.push(jetstream::Message { message, context: self.context.clone() });
                    }
                }
            };
            // A lost connection drains nothing; then what was handed out comes again by itself.
            let _ = timeout(DRAINED_WITHIN, until_empty).await;
        }
        rest
    }
}
