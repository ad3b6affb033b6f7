//! Publishes one event, or several as an atomic batch, which the broker stores as a whole or not at all.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::RequestErrorKind;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::{HeaderMap, HeaderName, HeaderValue, Request};
use bytes::Bytes;
use events::envelope::header;
use events::subject::EVENTS_STREAM;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use tokio::time::timeout;

use super::LaneError;
use super::batch::OutgoingEvent;
use super::broker::Broker;
use super::event::JournalEvent;

/// The broker's answer to an event or a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishAnswer {
    /// Stored with this sequence; of a batch, the sequence of its last event.
    Stored { sequence: u64 },
    /// The subject's last sequence is not the expected one, or the batch is incomplete, or the ack is not of this stream.
    Unconfirmed,
    /// The broker knows the message id. This does not prove that it still has the event (PROTOCOL R4).
    Duplicate,
    /// The broker refuses this event, now and later.
    Rejected(String),
    /// The broker takes no event of anybody at the moment.
    Unavailable(String),
}

/// A connection that no longer transmits fills its buffer, and sending then waits for ever. Longer than the answer may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Headers of an atomic batch (ADR-50 of the broker).
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// The `Nats-Msg-Id` of published events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageIds {
    /// The event's id: within the duplicate window the broker recognises a second copy by it.
    Original,
    /// The event's id with a suffix that was never used (PROTOCOL R8). The duplicate window outlives purge and delete, and would
    /// drop the copy that repairs the stream.
    Repair,
}

enum SendError {
    Headers(serde_json::Error),
    Lane(LaneError),
}

impl From<serde_json::Error> for SendError {
    fn from(error: serde_json::Error) -> Self {
        Self::Headers(error)
    }
}

impl From<LaneError> for SendError {
    fn from(error: LaneError) -> Self {
        Self::Lane(error)
    }
}

/// Publishes events, all or none.
pub async fn publish_batch(broker: &Broker, events: &[OutgoingEvent], ids: MessageIds) -> Result<PublishAnswer, LaneError> {
    match events {
        [] => Ok(PublishAnswer::Unconfirmed),
        [OutgoingEvent { event, expected }] => in_time(send_one(broker, event, *expected, ids)).await,
        [before @ .., last] => in_time(send_batch(broker, before, last, ids)).await,
    }
}

/// Publishes one event.
pub async fn publish_one(
    broker: &Broker,
    event: &JournalEvent,
    expected: u64,
    ids: MessageIds,
) -> Result<PublishAnswer, LaneError> {
    in_time(send_one(broker, event, Some(expected), ids)).await
}

async fn in_time(sending: impl Future<Output = Result<PublishAnswer, SendError>>) -> Result<PublishAnswer, LaneError> {
    match timeout(SEND_WITHIN, sending).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(SendError::Headers(error))) => Ok(PublishAnswer::Rejected(error.to_string())),
        Ok(Err(SendError::Lane(error))) => Err(error),
        Err(_) => Err(LaneError::Timeout(format!("it took no events within {} s", SEND_WITHIN.as_secs()))),
    }
}

async fn send_one(
    broker: &Broker,
    event: &JournalEvent,
    expected: Option<u64>,
    ids: MessageIds,
) -> Result<PublishAnswer, SendError> {
    request(broker, event, message_headers(event, expected, ids)?, 1).await
}

async fn send_batch(
    broker: &Broker,
    before: &[OutgoingEvent],
    last: &OutgoingEvent,
    ids: MessageIds,
) -> Result<PublishAnswer, SendError> {
    let batch = broker.client().new_inbox();
    for (position, OutgoingEvent { event, expected }) in (1..).zip(before) {
        let headers = in_batch(message_headers(event, *expected, ids)?, &batch, position);
        broker.check_connected()?;
        let sent = broker.client().publish_with_headers(event.key.subject(), headers, Bytes::clone(&event.body)).await;
        sent.map_err(|error| LaneError::Broker(error.to_string()))?;
    }
    let count = before.len() + 1;
    let mut headers = in_batch(message_headers(&last.event, last.expected, ids)?, &batch, count);
    headers.insert(BATCH_COMMIT, "1");
    request(broker, &last.event, headers, count).await
}

/// Sends an event and waits for the broker's answer to it and to the `count - 1` events of the batch before it.
async fn request(broker: &Broker, event: &JournalEvent, headers: HeaderMap, count: usize) -> Result<PublishAnswer, SendError> {
    broker.check_connected()?;
    let request = Request::new().headers(headers).payload(Bytes::clone(&event.body));
    match broker.client().send_request(event.key.subject(), request).await {
        Ok(message) => Ok(read_answer(&message.payload, count)),
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders => {
                Ok(PublishAnswer::Unavailable("no stream listens to the events' subjects".to_owned()))
            }
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Ok(PublishAnswer::Rejected(error.to_string()))
            }
            RequestErrorKind::TimedOut => Err(LaneError::Timeout(error.to_string()).into()),
            RequestErrorKind::Other => Err(LaneError::Broker(error.to_string()).into()),
        },
    }
}

fn message_headers(event: &JournalEvent, expected: Option<u64>, ids: MessageIds) -> serde_json::Result<HeaderMap> {
    let mut headers = parse_headers(&event.headers)?;
    headers.insert(NATS_EXPECTED_STREAM, EVENTS_STREAM);
    if let Some(sequence) = expected {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(sequence));
    }
    match ids {
        MessageIds::Original => headers.insert(header::MESSAGE_ID, event.id.to_string()),
        MessageIds::Repair => headers.insert(header::MESSAGE_ID, repair_id(event)),
    }
    Ok(headers)
}

/// Returns an id that was never used: its number is the time, and publishing an event takes longer than a microsecond.
fn repair_id(event: &JournalEvent) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}/r{}", event.id, now.as_micros())
}

fn in_batch(mut headers: HeaderMap, batch: &str, position: usize) -> HeaderMap {
    headers.insert(BATCH_ID, batch);
    headers.insert(BATCH_SEQUENCE, position.to_string());
    headers
}

/// The broker's error codes that the relay distinguishes.
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
struct PublishReply<'a> {
    stream: Option<&'a str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    count: Option<usize>,
    error: Option<PublishReplyError>,
}

#[derive(Deserialize)]
struct PublishReplyError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Reads the answer to `count` events. Anything but an ack with the right stream and count is no ack (PROTOCOL R6).
fn read_answer(reply: &[u8], count: usize) -> PublishAnswer {
    let Ok(reply) = serde_json::from_slice::<PublishReply>(reply) else {
        return PublishAnswer::Unconfirmed;
    };
    if let Some(PublishReplyError { code: status, err_code, description }) = reply.error {
        return match err_code {
            code::WRONG_LAST_SEQUENCE | code::BATCH_INCOMPLETE => PublishAnswer::Unconfirmed,
            code::BATCH_DUPLICATE => PublishAnswer::Duplicate,
            code::STREAM_FULL | code::BATCHES_TOO_MANY | code::STREAM_OTHER | code::RESOURCES => {
                PublishAnswer::Unavailable(description)
            }
            _ if status == 503 => PublishAnswer::Unavailable(description),
            _ => PublishAnswer::Rejected(format!("{description} ({err_code})")),
        };
    }
    if reply.stream != Some(EVENTS_STREAM) || reply.count.unwrap_or(1) != count || reply.seq == 0 {
        return PublishAnswer::Unconfirmed;
    }
    if reply.duplicate { PublishAnswer::Duplicate } else { PublishAnswer::Stored { sequence: reply.seq } }
}

/// Reads a JSON object of strings straight into the client's map.
fn parse_headers(json: &str) -> serde_json::Result<HeaderMap> {
    serde_json::from_str(json).map(|EventHeaders(headers)| headers)
}

struct EventHeaders(HeaderMap);

#[derive(serde::Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for EventHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventHeadersVisitor)
    }
}

struct EventHeadersVisitor;

impl<'de> Visitor<'de> for EventHeadersVisitor {
    type Value = EventHeaders;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of header names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EventHeaders, A::Error> {
        let mut headers = HeaderMap::new();
        while let Some((BorrowedText(name), BorrowedText(value))) = map.next_entry()? {
            // The client panics on an invalid name. A line break in a value would begin another header.
            let name: HeaderName = name.parse().map_err(|_| A::Error::custom(format!("{name:?} is not a header name")))?;
            let value: HeaderValue = value.parse().map_err(|_| A::Error::custom(format!("header {name} holds a line break")))?;
            headers.insert(name, value);
        }
        Ok(EventHeaders(headers))
    }
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
            (r#"{"stream":"LISTINGS_EVENTS","seq":7}"#.to_owned(), 1, PublishAnswer::Stored { sequence: 7 }),
            (
                r#"{"stream":"LISTINGS_EVENTS","seq":7,"batch":"b","count":5}"#.to_owned(),
                5,
                PublishAnswer::Stored { sequence: 7 },
            ),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7,"batch":"b","count":4}"#.to_owned(), 5, PublishAnswer::Unconfirmed),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7}"#.to_owned(), 5, PublishAnswer::Unconfirmed),
            (r#"{"stream":"OTHER","seq":7}"#.to_owned(), 1, PublishAnswer::Unconfirmed),
            (r#"{"stream":"LISTINGS_EVENTS","seq":7,"duplicate":true}"#.to_owned(), 1, PublishAnswer::Duplicate),
            (String::new(), 1, PublishAnswer::Unconfirmed),
            (error(400, 10071), 1, PublishAnswer::Unconfirmed),
            (error(400, 10176), 5, PublishAnswer::Unconfirmed),
            (error(400, 10201), 5, PublishAnswer::Duplicate),
            (error(503, 10077), 1, PublishAnswer::Unavailable(no.clone())),
            (error(429, 10210), 1, PublishAnswer::Unavailable(no.clone())),
            (error(400, 10060), 1, PublishAnswer::Unavailable(no.clone())),
            (error(503, 10008), 1, PublishAnswer::Unavailable(no)),
            (error(400, 10054), 1, PublishAnswer::Rejected("no (10054)".to_owned())),
        ] {
            assert_eq!(read_answer(reply.as_bytes(), count), expected, "{reply}");
        }
    }

    #[test]
    fn headers_are_read_and_nothing_can_be_smuggled_in() {
        let read = parse_headers(r#"{"ce-id": "1", "Correlation-Id": "a \"quoted\" one"}"#).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.get("Correlation-Id").unwrap().as_str(), "a \"quoted\" one");
        for bad in [r#"{"a": "1\r\nNats-Rollup: all"}"#, r#"{"a:b": "1"}"#, "[]", r#"{"a": 1}"#] {
            assert!(parse_headers(bad).is_err(), "{bad}");
        }
    }
}
