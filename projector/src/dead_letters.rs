//! Dead letters: events that a projection could not apply, stored with the reason, so that the events behind them can go on.
//!
//! A dead letter is stored before its event is acknowledged. Dying in between stores it again under the same id, which the broker
//! recognises.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, RawMessageErrorKind},
    },
};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{
    envelope::header::MESSAGE_ID,
    subject::{DLQ_STREAM, EVENTS_PREFIX},
};

use tokio::time::timeout;

use crate::{generations::Generation, source_event::SourceEvent};

/// Names of the headers that say why an event became a dead letter.
pub mod header {
    pub const PROJECTION: &str = "Dlq-Projection";
    pub const GENERATION: &str = "Dlq-Generation";
    pub const CLASS: &str = "Dlq-Class";
    pub const ERROR: &str = "Dlq-Error";
    pub const ATTEMPTS: &str = "Dlq-Attempts";
    pub const FIRST_FAILED_AT: &str = "Dlq-First-Failed-At";
    pub const STREAM_SEQUENCE: &str = "Dlq-Stream-Sequence";
}

/// How headers for the broker begin. A copied id would make the dead letter a duplicate; a copied expectation would never be met.
const BROKER_PREFIX: &str = "nats-";
/// The longest value of a header, in bytes.
const VALUE_MAX: usize = 1024;

/// Timeout of two requests. Each has one of its own once the client has taken it, which it may not do without a connection.
const STORE_TIMEOUT: Duration = Duration::from_secs(12);

/// Why an event became a dead letter; a token of the dead letter's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterClass {
    /// It can never be applied.
    Poison,
    /// It failed too often while other events were applied.
    Exhausted,
}

impl DeadLetterClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Exhausted => "exhausted",
        }
    }
}

/// Why an event becomes a dead letter.
#[derive(Debug)]
pub struct DeadLetterReason {
    pub class: DeadLetterClass,
    pub error: String,
    pub attempts: u32,
    pub first_failed_at: DateTime<Utc>,
}

/// The dead letters of one generation.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    jetstream: jetstream::Context,
    generation: Generation,
}

impl DeadLetters {
    pub fn new(jetstream: jetstream::Context, generation: Generation) -> Self {
        Self { jetstream, generation }
    }

    /// Stores the dead letter of an event. Returns once the broker has acknowledged it.
    pub async fn store(&self, event: &SourceEvent, reason: &DeadLetterReason) -> anyhow::Result<()> {
        let subject = self.subject(event, reason.class);
        let mut headers = self.headers(event, reason);
        let id = self.generation.dead_letter_id(&event.event_id());
        in_time(async {
            // Two events that were written by hand may have one id (decision 0303).
            for id in [one_line(&id), one_line(&format!("{}/{id}", event.sequence))] {
                headers.insert(MESSAGE_ID, id.as_str());
                let publish = self.jetstream.publish_with_headers(subject.clone(), headers.clone(), event.body().clone());
                let ack =
                    publish.await.context("the dead letter was not sent")?.await.context("the dead letter was not stored")?;
                if !ack.duplicate {
                    return Ok(());
                }
                // A duplicate is no proof that it is stored: the broker remembers the ids of messages that were purged.
                match self.message_at(ack.sequence).await?.filter(|stored| has_id(stored, &id)) {
                    Some(stored) if stored.subject.as_str() == subject && stored.payload == *event.body() => return Ok(()),
                    Some(_) => {}
                    None => anyhow::bail!("the broker takes the dead letter for a duplicate"),
                }
            }
            anyhow::bail!("other dead letters have the id {id}")
        })
        .await
    }

    /// Reads the message that the broker takes for the first copy.
    async fn message_at(&self, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
        let stream = self.jetstream.get_stream_no_info(DLQ_STREAM).await?;
        match stream.get_raw_message(sequence).await {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a dead letter of the event's aggregate.
    pub async fn has_some_of_aggregate(&self, event: &SourceEvent, class: DeadLetterClass) -> anyhow::Result<bool> {
        let stream = self.jetstream.get_stream_no_info(DLQ_STREAM).await?;
        let subject = self.subject(event, class);
        in_time(async {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    fn subject(&self, event: &SourceEvent, class: DeadLetterClass) -> String {
        let aggregate = event.subject().strip_prefix(EVENTS_PREFIX).unwrap_or(".unknown.unknown");
        self.generation.dead_letter_subject(class.as_str(), aggregate)
    }

    fn headers(&self, event: &SourceEvent, reason: &DeadLetterReason) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in event.headers().into_iter().flat_map(HeaderMap::iter) {
            if !AsRef::<str>::as_ref(name).to_ascii_lowercase().starts_with(BROKER_PREFIX) {
                for value in values {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let first_failed_at = reason.first_failed_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let ours = [
            (header::PROJECTION, self.generation.projection.clone()),
            (header::GENERATION, self.generation.number.to_string()),
            (header::CLASS, reason.class.as_str().to_owned()),
            (header::ERROR, reason.error.clone()),
            (header::ATTEMPTS, reason.attempts.to_string()),
            (header::FIRST_FAILED_AT, first_failed_at),
            (header::STREAM_SEQUENCE, event.sequence.to_string()),
        ];
        for (name, value) in ours {
            // Any of them may have come from outside: the error quotes what the sender wrote.
            headers.insert(name, one_line(&value).as_str());
        }
        headers
    }
}

fn has_id(message: &StreamMessage, id: &str) -> bool {
    message.headers.get(MESSAGE_ID).is_some_and(|stored| stored.as_str() == id)
}

async fn in_time<T>(request: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(STORE_TIMEOUT, request).await.context("the broker does not answer about dead letters")?
}

/// Makes a text a header's value: one line, cut at [`VALUE_MAX`].
fn one_line(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(VALUE_MAX)];
    cut.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_one_short_line() {
        assert_eq!(one_line("failed\r\nNats-Rollup: all"), "failed  Nats-Rollup: all");
        assert_eq!(one_line(&"љ".repeat(1000)).len(), VALUE_MAX);
    }
}
