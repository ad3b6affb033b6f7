//! A lane's connection to the broker, and what the stream holds.

use std::ops::RangeInclusive;
use std::pin::pin;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream as JetStream};
use async_nats::{Client, ConnectOptions, Event as Happened};
use chrono::{DateTime, SubsecRound as _, Utc};
use events::AggregateKey;
use events::envelope::header;
use events::subject::{EVENT_MAX, EVENTS_STREAM};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Broken;
use super::extent::Extent;
use super::resolve::{Last, Stored};

/// Shorter than the idle timeout of the session, so that waiting for an answer never costs the shards.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Messages that are asked for side by side. Each comes with its body, so a slow link brings them one after the other: then the
/// next one must come in time, and the last one when it comes.
const LOOKS_AT_ONCE: usize = 64;
const LOOKS_WITHIN: Duration = Duration::from_mins(5);

/// What `max_payload` must be at least, in bytes: the largest event and the headers of a dead letter (PROTOCOL W5).
const PAYLOAD_NEEDED: usize = 4 * 1024 * 1024;
/// What the relay's own `Nats-*` headers may add to the largest event, in bytes.
const RELAY_HEADERS: usize = 8 * 1024;

pub struct Broker {
    client: Client,
    stream: JetStream,
    /// The same, for many questions at once: each may take longer, because the others are in its way.
    crowded: JetStream<()>,
    found: Extent,
    lost: CancellationToken,
}

impl Broker {
    /// Connects, and looks whether the stream is there and is what the relay needs.
    pub async fn connect(urls: &[String]) -> Result<Self, Broken> {
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
        let client = timeout(CONNECT_WITHIN, options.connect(urls))
            .await
            .map_err(|_| Broken::Broker(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))?
            .map_err(|error| Broken::Broker(error.to_string()))?;

        let max_payload = client.server_info().max_payload;
        if max_payload < PAYLOAD_NEEDED {
            return Err(Broken::Unfit(format!(
                "max_payload of the server is {max_payload}, and must be {PAYLOAD_NEEDED} at least (see nats/server.conf)"
            )));
        }
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let stream = context.get_stream(EVENTS_STREAM).await.map_err(|error| not_found(&error))?;
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
        let found = extent(info);
        context.set_timeout(LOOKS_WITHIN);
        let crowded = context.get_stream_no_info(EVENTS_STREAM).await.map_err(|error| not_found(&error))?;
        Ok(Self { client, stream, crowded, found, lost })
    }

    /// Cancelled when the connection was lost, even if only for a moment.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the stream held when we connected.
    pub fn found(&self) -> Extent {
        self.found
    }

    /// What the stream holds now.
    pub async fn extent(&self) -> Result<Extent, Broken> {
        let info = self.stream.get_info().await.map_err(|error| Broken::Waiting(format!("stream {EVENTS_STREAM}: {error}")))?;
        Ok(extent(&info))
    }

    /// Fails if the connection was lost, even if only for a moment.
    pub fn check_connected(&self) -> Result<(), Broken> {
        if self.lost.is_cancelled() { Err(Broken::Broker("the connection was lost".to_owned())) } else { Ok(()) }
    }

    /// When the stream was created, as Postgres keeps it.
    pub fn stream_created(&self) -> DateTime<Utc> {
        self.found.created
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

    /// [`Self::last`] of each of these aggregates.
    pub async fn last_of(&self, keys: impl IntoIterator<Item = AggregateKey>) -> Result<Vec<(AggregateKey, Last)>, Broken> {
        let look = async |key: AggregateKey| {
            let read = self.crowded.raw_message_builder().last_by_subject(key.subject()).send().await;
            Ok((key, read_message(read)?.map_or(Last::Nothing, |(last, _)| last)))
        };
        one_after_the_other(stream::iter(keys).map(look).buffer_unordered(LOOKS_AT_ONCE)).await
    }

    /// The messages with these sequences that are there, and their subjects.
    pub async fn range(&self, sequences: RangeInclusive<u64>) -> Result<Vec<(Last, String)>, Broken> {
        let look = async |sequence| read_message(self.crowded.raw_message_builder().sequence(sequence).send().await);
        let seen = one_after_the_other(stream::iter(sequences).map(look).buffered(LOOKS_AT_ONCE)).await?;
        Ok(seen.into_iter().flatten().collect())
    }
}

async fn one_after_the_other<T>(looks: impl Stream<Item = Result<T, Broken>>) -> Result<Vec<T>, Broken> {
    let mut looks = pin!(looks);
    let mut seen = Vec::new();
    while let Some(next) = timeout(ANSWER_WITHIN, looks.next())
        .await
        .map_err(|_| Broken::Broker(format!("no message came for {} s", ANSWER_WITHIN.as_secs())))?
    {
        seen.push(next?);
    }
    Ok(seen)
}

fn not_found(error: &GetStreamError) -> Broken {
    match error.kind() {
        GetStreamErrorKind::JetStream(answer) => Broken::Waiting(format!("stream {EVENTS_STREAM}: {answer}")),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::Request => {
            Broken::Broker(format!("stream {EVENTS_STREAM}: {error}"))
        }
    }
}

fn extent(info: &Info) -> Extent {
    let Info { created, state, .. } = info;
    // Postgres keeps microseconds, the broker nanoseconds.
    let created = created.trunc_subsecs(6);
    Extent { created, first: state.first_sequence, last: state.last_sequence, messages: state.messages }
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
    let last = match (version, event_id) {
        (Some(version), Some(event_id)) => Last::Event(Stored { version, event_id, sequence }),
        // A relay always gives both.
        (None, _) | (_, None) => Last::Foreign { sequence },
    };
    Ok(Some((last, message.subject.to_string())))
}
