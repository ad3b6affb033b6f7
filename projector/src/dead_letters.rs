//! Events that a projection could not apply, put aside with the reason, so that those behind them can go on.
//!
//! A letter is stored before its event is acknowledged: dying in between stores it twice, under the same id.

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
    subject::{DLQ_PREFIX, DLQ_STREAM, EVENTS_PREFIX},
};

use tokio::time::timeout;

use crate::{delivery::Delivery, verdict::Class};

/// Names of the headers that say why an event was put aside.
pub mod header {
    pub const PROJECTION: &str = "Dlq-Projection";
    pub const GENERATION: &str = "Dlq-Generation";
    pub const CLASS: &str = "Dlq-Class";
    pub const ERROR: &str = "Dlq-Error";
    pub const ATTEMPTS: &str = "Dlq-Attempts";
    pub const FIRST_FAILED_AT: &str = "Dlq-First-Failed-At";
    pub const STREAM_SEQUENCE: &str = "Dlq-Stream-Sequence";
}

/// Headers of the broker. A copied id would make the letter a duplicate, a copied expectation would never be met.
const BROKERS_OWN: &str = "nats-";
/// A header is one line; nobody reads more of it. In bytes.
const VALUE_MAX: usize = 1024;

/// Two questions, each with a bound of its own once the client has taken it; without a connection it may not even do that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(12);

/// Why an event is put aside.
#[derive(Debug)]
pub struct Reason {
    pub class: Class,
    pub error: String,
    pub attempts: u32,
    pub first_failed_at: DateTime<Utc>,
}

/// The letters of one projection's generation.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub jetstream: jetstream::Context,
    pub projection: &'static str,
    pub generation: i32,
}

impl DeadLetters {
    /// Returns once the broker has it.
    pub async fn store(&self, delivery: &Delivery, reason: &Reason) -> anyhow::Result<()> {
        let subject = self.subject(delivery, reason.class);
        let mut headers = self.headers(delivery, reason);
        let id = self.id(delivery);
        in_time(async {
            // Whoever writes events by hand may give two of them one id.
            for id in [one_line(&id), one_line(&format!("{}/{id}", delivery.sequence))] {
                headers.insert(MESSAGE_ID, id.as_str());
                let publish = self.jetstream.publish_with_headers(subject.clone(), headers.clone(), delivery.payload().clone());
                let ack =
                    publish.await.context("the dead letter was not sent")?.await.context("the dead letter was not stored")?;
                if !ack.duplicate {
                    return Ok(());
                }
                // Being called a duplicate is no proof: the broker remembers ids of what was purged.
                match self.letter_at(ack.sequence).await?.filter(|letter| has_id(letter, &id)) {
                    Some(letter) if letter.subject.as_str() == subject && letter.payload == *delivery.payload() => return Ok(()),
                    Some(_) => {}
                    None => anyhow::bail!("the broker takes the dead letter for a duplicate"),
                }
            }
            anyhow::bail!("other dead letters have the id {id}")
        })
        .await
    }

    /// What is where the broker says that the first copy is.
    async fn letter_at(&self, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
        let stream = self.jetstream.get_stream_no_info(DLQ_STREAM).await?;
        match stream.get_raw_message(sequence).await {
            Ok(letter) => Ok(Some(letter)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an event of the same aggregate was put aside before.
    pub async fn knows_aggregate_of(&self, delivery: &Delivery, class: Class) -> anyhow::Result<bool> {
        let stream = self.jetstream.get_stream_no_info(DLQ_STREAM).await?;
        let subject = self.subject(delivery, class);
        in_time(async {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    fn id(&self, delivery: &Delivery) -> String {
        format!("{}/{}/{}", self.projection, self.generation, delivery.event_id())
    }

    fn subject(&self, delivery: &Delivery, class: Class) -> String {
        let aggregate = delivery.subject().strip_prefix(EVENTS_PREFIX).unwrap_or(".unknown.unknown");
        format!("{DLQ_PREFIX}.{}.{}{aggregate}", self.projection, class.as_str())
    }

    fn headers(&self, delivery: &Delivery, reason: &Reason) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in delivery.headers().into_iter().flat_map(HeaderMap::iter) {
            if !AsRef::<str>::as_ref(name).to_ascii_lowercase().starts_with(BROKERS_OWN) {
                for value in values {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let first_failed_at = reason.first_failed_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let ours = [
            (header::PROJECTION, self.projection.to_owned()),
            (header::GENERATION, self.generation.to_string()),
            (header::CLASS, reason.class.as_str().to_owned()),
            (header::ERROR, reason.error.clone()),
            (header::ATTEMPTS, reason.attempts.to_string()),
            (header::FIRST_FAILED_AT, first_failed_at),
            (header::STREAM_SEQUENCE, delivery.sequence.to_string()),
        ];
        for (name, value) in ours {
            // Of any of them: the id of what cannot be read is whatever its sender wrote.
            headers.insert(name, one_line(&value).as_str());
        }
        headers
    }
}

fn has_id(letter: &StreamMessage, id: &str) -> bool {
    letter.headers.get(MESSAGE_ID).is_some_and(|held| held.as_str() == id)
}

async fn in_time<T>(question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(ANSWERED_WITHIN, question).await.context("the broker does not answer about dead letters")?
}

/// A header's value: one line, not too long.
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
