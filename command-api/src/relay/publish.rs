//! One more event for the stream, or several that it takes as a whole or not at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::RequestErrorKind;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::{HeaderMap, HeaderValue, Request};
use bytes::Bytes;
use events::envelope::header;
use events::subject::EVENTS_STREAM;
use serde::Deserialize;
use tokio::time::timeout;

use super::Broken;
use super::broker::Broker;
use super::claim::Event;
use super::wire;

/// What the broker says to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Stored under this sequence. In a batch: the last event's.
    Stored { sequence: u64 },
    /// The subject's last message is not the expected one, or the batch is not whole.
    Contradicted,
    /// It knows the id. That is no proof that it still has the event.
    Duplicate,
    /// It will not take this event, now or later.
    Refused(String),
    /// It takes nothing at the moment.
    Waiting(String),
}

/// A connection that takes nothing any more fills up, and sending then waits for ever. Longer than the answer may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Headers of an atomic batch (ADR-50 of the broker).
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Under which id an event is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The event's own: within the duplicate window the broker knows a second copy by it.
    Own,
    /// One that was never used, so that the duplicate window cannot know it. The window survives purge and delete, and would
    /// swallow the copy that repairs the stream.
    Again,
}

enum Unsent {
    Headers(serde_json::Error),
    Broken(Broken),
}

impl From<serde_json::Error> for Unsent {
    fn from(error: serde_json::Error) -> Self {
        Self::Headers(error)
    }
}

impl From<Broken> for Unsent {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Broker {
    /// Publishes events that follow each other, all or none. An expectation is the last sequence of the event's subject; the
    /// later events of a subject have none, because the broker allows it on the first only.
    pub async fn publish(&self, events: &[(Event, Option<u64>)], naming: Naming) -> Result<Answer, Broken> {
        match events {
            [] => Ok(Answer::Contradicted),
            [(event, expected)] => self.in_time(self.send_one(event, *expected, naming)).await,
            [before @ .., (last, expected)] => self.in_time(self.send_batch(before, last, *expected, naming)).await,
        }
    }

    /// Publishes one event.
    pub async fn publish_one(&self, event: &Event, expected: u64, naming: Naming) -> Result<Answer, Broken> {
        self.in_time(self.send_one(event, Some(expected), naming)).await
    }

    async fn in_time(&self, sending: impl Future<Output = Result<Answer, Unsent>>) -> Result<Answer, Broken> {
        match timeout(SEND_WITHIN, sending).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unsent::Headers(error))) => Ok(Answer::Refused(error.to_string())),
            Ok(Err(Unsent::Broken(broken))) => Err(broken),
            Err(_) => Err(Broken::Slow(format!("it took no events within {} s", SEND_WITHIN.as_secs()))),
        }
    }

    async fn send_one(&self, event: &Event, expected: Option<u64>, naming: Naming) -> Result<Answer, Unsent> {
        self.ask(event, headers(event, expected, naming)?, 1).await
    }

    async fn send_batch(
        &self,
        before: &[(Event, Option<u64>)],
        last: &Event,
        expected: Option<u64>,
        naming: Naming,
    ) -> Result<Answer, Unsent> {
        let batch = self.client().new_inbox();
        for (position, (event, expected)) in (1..).zip(before) {
            let headers = in_batch(headers(event, *expected, naming)?, &batch, position);
            self.check_connected()?;
            let sent = self.client().publish_with_headers(event.key.subject(), headers, Bytes::clone(&event.body)).await;
            sent.map_err(|error| Broken::Broker(error.to_string()))?;
        }
        let count = before.len() + 1;
        let mut headers = in_batch(headers(last, expected, naming)?, &batch, count);
        headers.insert(BATCH_COMMIT, "1");
        self.ask(last, headers, count).await
    }

    async fn ask(&self, event: &Event, headers: HeaderMap, count: usize) -> Result<Answer, Unsent> {
        self.check_connected()?;
        let request = Request::new().headers(headers).payload(Bytes::clone(&event.body));
        match self.client().send_request(event.key.subject(), request).await {
            Ok(message) => Ok(judge(&message.payload, count)),
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => Ok(Answer::Waiting("no stream listens to the events' subjects".to_owned())),
                RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => Ok(Answer::Refused(error.to_string())),
                RequestErrorKind::TimedOut => Err(Broken::Slow(error.to_string()).into()),
                RequestErrorKind::Other => Err(Broken::Broker(error.to_string()).into()),
            },
        }
    }
}

fn headers(event: &Event, expected: Option<u64>, naming: Naming) -> serde_json::Result<HeaderMap> {
    let mut headers = wire::headers(&event.headers)?;
    headers.insert(NATS_EXPECTED_STREAM, EVENTS_STREAM);
    if let Some(sequence) = expected {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(sequence));
    }
    match naming {
        Naming::Own => headers.insert(header::MESSAGE_ID, event.id.to_string()),
        Naming::Again => headers.insert(header::MESSAGE_ID, again(event)),
    }
    Ok(headers)
}

/// Numbered by the time: publishing an event takes longer than a microsecond.
fn again(event: &Event) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}/r{}", event.id, now.as_micros())
}

fn in_batch(mut headers: HeaderMap, batch: &str, position: usize) -> HeaderMap {
    headers.insert(BATCH_ID, batch);
    headers.insert(BATCH_SEQUENCE, position.to_string());
    headers
}

/// The broker's error codes that the relay tells apart.
mod code {
    pub const BATCH_INCOMPLETE: u64 = 10176;
    pub const BATCH_DUPLICATE: u64 = 10201;
    pub const BATCHES_TOO_MANY: u64 = 10210;
    pub const RESOURCES: u64 = 10023;
    pub const STREAM_FULL: u64 = 10077;
    pub const STREAM_OTHER: u64 = 10060;
    pub const WRONG_LAST_SEQUENCE: u64 = 10071;
}

#[derive(Deserialize)]
struct Reply<'a> {
    stream: Option<&'a str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    count: Option<usize>,
    error: Option<ReplyError>,
}

#[derive(Deserialize)]
struct ReplyError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What an answer to `count` events means. Anything but an ack of the right stream and count is no ack.
pub fn judge(reply: &[u8], count: usize) -> Answer {
    let Ok(reply) = serde_json::from_slice::<Reply>(reply) else {
        return Answer::Contradicted;
    };
    if let Some(ReplyError { code: status, err_code, description }) = reply.error {
        return match err_code {
            code::WRONG_LAST_SEQUENCE | code::BATCH_INCOMPLETE => Answer::Contradicted,
            code::BATCH_DUPLICATE => Answer::Duplicate,
            code::STREAM_FULL | code::BATCHES_TOO_MANY | code::STREAM_OTHER | code::RESOURCES => Answer::Waiting(description),
            _ if status == 503 => Answer::Waiting(description),
            _ => Answer::Refused(format!("{description} ({err_code})")),
        };
    }
    if reply.stream != Some(EVENTS_STREAM) || reply.count.unwrap_or(1) != count || reply.seq == 0 {
        return Answer::Contradicted;
    }
    if reply.duplicate { Answer::Duplicate } else { Answer::Stored { sequence: reply.seq } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ack_of_the_right_stream_and_count_is_an_ack() {
        let error =
            |code: u64, err_code: u64| format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"no"}}}}"#);
        let no = "no".to_owned();
        for (reply, count, expected) in [
            (r#"{"stream":"LISTINGS_EVENTS","seq":7}"#.to_owned(), 1, Answer::Stored { sequence: 7 }),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7,"batch":"b","count":5}"#.to_owned(), 5, Answer::Stored { sequence: 7 }),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7,"batch":"b","count":4}"#.to_owned(), 5, Answer::Contradicted),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7}"#.to_owned(), 5, Answer::Contradicted),
            (r#"{"stream":"OTHER","seq":7}"#.to_owned(), 1, Answer::Contradicted),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7,"duplicate":true}"#.to_owned(), 1, Answer::Duplicate),
            (String::new(), 1, Answer::Contradicted),
            (error(400, 10071), 1, Answer::Contradicted),
            (error(400, 10176), 5, Answer::Contradicted),
            (error(400, 10201), 5, Answer::Duplicate),
            (error(503, 10077), 1, Answer::Waiting(no.clone())),
            (error(429, 10210), 1, Answer::Waiting(no.clone())),
            (error(400, 10060), 1, Answer::Waiting(no.clone())),
            (error(503, 10008), 1, Answer::Waiting(no)),
            (error(400, 10054), 1, Answer::Refused("no (10054)".to_owned())),
        ] {
            assert_eq!(judge(reply.as_bytes(), count), expected, "{reply}");
        }
    }
}
