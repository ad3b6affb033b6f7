//! A lane's connection to the broker: what the stream holds, and one more event for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, context::GetStreamErrorKind};
use async_nats::{Client, ConnectOptions, Event as Happened, HeaderMap, Request};
use chrono::{DateTime, SubsecRound as _, Utc};
use events::envelope::header;
use events::subject::{EVENT_MAX, EVENTS_STREAM};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Broken;
use super::claim::Event;
use super::resolve::Last;
use super::wire;

/// Shorter than the idle timeout of the session, so that waiting for an answer never costs the shards.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What `max_payload` must be at least, in bytes: the largest event and the headers of a dead letter (PROTOCOL W5).
const PAYLOAD_NEEDED: usize = 4 * 1024 * 1024;
/// What the relay's own `Nats-*` headers may add to the largest event, in bytes.
const RELAY_HEADERS: usize = 8 * 1024;

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

pub struct Broker {
    client: Client,
    stream: Stream,
    created: DateTime<Utc>,
    lost: CancellationToken,
    repair: u128,
}

impl Broker {
    /// Connects, and looks whether the stream is there and is what the relay needs.
    pub async fn connect(url: &str) -> Result<Self, Broken> {
        let lost = CancellationToken::new();
        let seen = lost.clone();
        let options = ConnectOptions::new()
            .name("listings-relay")
            .request_timeout(Some(ANSWER_WITHIN))
            // A new connection may lead to a broker that lost data: it is always ours to make, never the client's.
            .max_reconnects(1)
            .event_callback(move |happened| {
                if matches!(happened, Happened::Disconnected | Happened::Closed) {
                    seen.cancel();
                }
                std::future::ready(())
            });
        let client = timeout(CONNECT_WITHIN, options.connect(url))
            .await
            .map_err(|_| Broken::Broker(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))?
            .map_err(|error| Broken::Broker(error.to_string()))?;

        let max_payload = client.server_info().max_payload;
        if max_payload < PAYLOAD_NEEDED {
            return Err(Broken::Waiting(format!(
                "max_payload of the server is {max_payload}, and must be {PAYLOAD_NEEDED} at least"
            )));
        }
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let stream = context.get_stream(EVENTS_STREAM).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(answer) => Broken::Waiting(format!("stream {EVENTS_STREAM}: {answer}")),
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::Request => {
                Broken::Broker(format!("stream {EVENTS_STREAM}: {error}"))
            }
        })?;
        let info = stream.cached_info();
        if !info.config.allow_atomic_publish {
            return Err(Broken::Waiting(format!(
                "stream {EVENTS_STREAM} lacks allow_atomic: provision it, on a server of 2.12 or newer"
            )));
        }
        let (largest, needed) = (info.config.max_message_size, EVENT_MAX + RELAY_HEADERS);
        if usize::try_from(largest).is_ok_and(|largest| largest > 0 && largest < needed) {
            return Err(Broken::Waiting(format!(
                "max_msg_size of stream {EVENTS_STREAM} is {largest}, and must be {needed} at least"
            )));
        }
        let created = as_postgres_keeps_it(info.created);
        let repair = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(Self { client, stream, created, lost, repair })
    }

    /// Cancelled when the connection was lost, even if only for a moment.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub fn check_connected(&self) -> Result<(), Broken> {
        if self.lost.is_cancelled() { Err(Broken::Broker("the connection was lost".to_owned())) } else { Ok(()) }
    }

    /// When the stream was created, as Postgres keeps it.
    pub fn stream_created(&self) -> DateTime<Utc> {
        self.created
    }

    /// Fails if the stream is gone, or is another one than at connecting.
    pub async fn check_same_stream(&self) -> Result<(), Broken> {
        let info = self.stream.get_info().await.map_err(|error| Broken::Waiting(format!("stream {EVENTS_STREAM}: {error}")))?;
        if as_postgres_keeps_it(info.created) == self.created {
            return Ok(());
        }
        Err(Broken::Waiting(format!("stream {EVENTS_STREAM} was made anew")))
    }

    /// The last message of a subject, as the stream's leader has it.
    pub async fn last(&self, subject: &str) -> Result<Last, Broken> {
        let read = self.stream.raw_message_builder().last_by_subject(subject).send().await;
        Ok(read_message(read)?.map_or(Last::Nothing, |(last, _)| last))
    }

    /// The message of that sequence, and its subject.
    pub async fn at(&self, sequence: u64) -> Result<Option<(Last, String)>, Broken> {
        read_message(self.stream.raw_message_builder().sequence(sequence).send().await)
    }

    /// An id that the duplicate window cannot know: a copy under the first one could be swallowed by it.
    pub fn repair_id(&self, event_id: Uuid) -> String {
        format!("{event_id}/r{}", self.repair)
    }

    /// Publishes one event, if `expected` is the last sequence of its subject.
    pub async fn publish(&self, event: &Event, message_id: &str, expected: u64) -> Result<Answer, Broken> {
        let mut headers = match wire::headers(&event.headers) {
            Ok(headers) => headers,
            Err(error) => return Ok(Answer::Refused(error.to_string())),
        };
        headers.insert(async_nats::header::NATS_EXPECTED_STREAM, EVENTS_STREAM);
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, async_nats::HeaderValue::from(expected));
        headers.insert(header::MESSAGE_ID, message_id);
        self.ask(event.key.subject(), headers, event.body.clone()).await
    }

    async fn ask(&self, subject: String, headers: HeaderMap, body: bytes::Bytes) -> Result<Answer, Broken> {
        self.check_connected()?;
        let request = Request::new().headers(headers).payload(body);
        match self.client.send_request(subject, request).await {
            Ok(message) => Ok(judge(&message.payload, 1)),
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => Ok(Answer::Waiting("no stream listens to the events' subjects".to_owned())),
                RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => Ok(Answer::Refused(error.to_string())),
                RequestErrorKind::TimedOut | RequestErrorKind::Other => Err(Broken::Broker(error.to_string())),
            },
        }
    }
}

/// Postgres keeps microseconds, the broker nanoseconds.
fn as_postgres_keeps_it(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}

type Read = Result<jetstream::message::StreamMessage, jetstream::stream::RawMessageError>;

fn read_message(read: Read) -> Result<Option<(Last, String)>, Broken> {
    let message = match read {
        Ok(message) => message,
        Err(error) => {
            return match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(answer) => Err(Broken::Waiting(answer.to_string())),
                LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
                    Err(Broken::Broker(error.to_string()))
                }
            };
        }
    };
    let text = |name: &str| message.headers.get(name).map(async_nats::HeaderValue::as_str);
    let version = text(header::AGGREGATE_VERSION).and_then(|version| version.parse().ok());
    let event_id = text(header::MESSAGE_ID).and_then(|id| id.split('/').next()?.parse().ok());
    let sequence = message.sequence;
    let last = match version {
        Some(version) => Last::Event { sequence, version, event_id: event_id.unwrap_or_default() },
        None => Last::Foreign { sequence },
    };
    Ok(Some((last, message.subject.to_string())))
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
