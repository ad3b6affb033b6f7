//! A lane's connection to the broker, and reads of its stream.

use std::ops::RangeInclusive;
use std::pin::pin;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream as JetStream};
use async_nats::{Client, ConnectOptions, Event as ConnectionEvent};
use chrono::{DateTime, SubsecRound as _, Utc};
use events::envelope::header;
use events::subject::{EVENT_MAX, EVENTS_STREAM};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::LaneError;
use super::event::{StoredEvent, SubjectKey};
use super::resolve::LastMessage;
use super::stream_extent::StreamExtent;

/// Shorter than the idle timeout of the session, so that waiting for an answer does not cost the shards.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Messages requested at the same time. Each answer holds the body, so a slow link delivers them one after the other: the timeout
/// for an answer applies to the next one, and a single request may take much longer.
const READS_AT_ONCE: usize = 64;
const READ_WITHIN: Duration = Duration::from_mins(5);

/// Lower bound of the server's `max_payload`, in bytes: the largest event with the headers of a dead letter (PROTOCOL W5).
const PAYLOAD_NEEDED: usize = 4 * 1024 * 1024;
/// Bytes that the relay's own `Nats-*` headers may add to the largest event.
const RELAY_HEADERS: usize = 8 * 1024;

/// A connection to the broker that is never re-established: a new connection may reach a broker that lost data, so the lane must
/// check its watermarks first.
pub struct Broker {
    client: Client,
    stream: JetStream,
    /// The same stream with a longer timeout, for many requests at a time.
    bulk_reads: JetStream<()>,
    extent_at_connect: StreamExtent,
    connection_lost: CancellationToken,
}

impl Broker {
    /// Connects, and checks that the stream exists and is configured as the relay needs it.
    pub async fn connect(urls: &[String]) -> Result<Self, LaneError> {
        let connection_lost = CancellationToken::new();
        let on_loss = connection_lost.clone();
        let options =
            ConnectOptions::new().name("listings-relay").request_timeout(Some(ANSWER_WITHIN)).max_reconnects(1).event_callback(
                move |event| {
                    if matches!(event, ConnectionEvent::Disconnected | ConnectionEvent::Closed) {
                        on_loss.cancel();
                    }
                    std::future::ready(())
                },
            );
        let client = timeout(CONNECT_WITHIN, options.connect(urls))
            .await
            .map_err(|_| LaneError::Broker(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))?
            .map_err(|error| LaneError::Broker(error.to_string()))?;

        let max_payload = client.server_info().max_payload;
        if max_payload < PAYLOAD_NEEDED {
            return Err(LaneError::Misconfigured(format!(
                "max_payload of the server is {max_payload}; it must be at least {PAYLOAD_NEEDED} (see nats/server.conf)"
            )));
        }
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let stream = context.get_stream(EVENTS_STREAM).await.map_err(|error| not_found(&error))?;
        let info = stream.cached_info();
        if !info.config.allow_atomic_publish {
            return Err(LaneError::Unavailable(format!(
                "stream {EVENTS_STREAM} lacks allow_atomic: provision it, on nats-server 2.12 or newer"
            )));
        }
        let (largest, needed) = (info.config.max_message_size, EVENT_MAX + RELAY_HEADERS);
        if usize::try_from(largest).is_ok_and(|largest| largest > 0 && largest < needed) {
            return Err(LaneError::Unavailable(format!(
                "max_msg_size of stream {EVENTS_STREAM} is {largest}; it must be at least {needed}"
            )));
        }
        let extent_at_connect = extent(info);
        context.set_timeout(READ_WITHIN);
        let bulk_reads = context.get_stream_no_info(EVENTS_STREAM).await.map_err(|error| not_found(&error))?;
        Ok(Self { client, stream, bulk_reads, extent_at_connect, connection_lost })
    }

    /// Returns a token that is cancelled once the connection was lost, even if only for a moment.
    pub fn connection_lost(&self) -> &CancellationToken {
        &self.connection_lost
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the extent of the stream at the time of the connect.
    pub fn extent_at_connect(&self) -> StreamExtent {
        self.extent_at_connect
    }

    /// Returns the extent of the stream now.
    pub async fn extent(&self) -> Result<StreamExtent, LaneError> {
        let info =
            self.stream.get_info().await.map_err(|error| LaneError::Unavailable(format!("stream {EVENTS_STREAM}: {error}")))?;
        Ok(extent(&info))
    }

    /// Fails if the connection was lost, even if only for a moment.
    pub fn check_connected(&self) -> Result<(), LaneError> {
        if self.connection_lost.is_cancelled() { Err(LaneError::Broker("the connection was lost".to_owned())) } else { Ok(()) }
    }

    /// Returns when the stream was created, with the precision of Postgres.
    pub fn stream_created(&self) -> DateTime<Utc> {
        self.extent_at_connect.created
    }

    /// Returns the last message of a subject, as the stream's leader has it.
    pub async fn last_message(&self, subject: &str) -> Result<LastMessage, LaneError> {
        let read = self.stream.raw_message_builder().last_by_subject(subject).send().await;
        Ok(read_message(read)?.map_or(LastMessage::None, |(message, _)| message))
    }

    /// Returns the message with this sequence, and its subject.
    pub async fn message_at(&self, sequence: u64) -> Result<Option<(LastMessage, String)>, LaneError> {
        read_message(self.stream.raw_message_builder().sequence(sequence).send().await)
    }

    /// Returns the last event of each of these aggregates that has one.
    pub async fn last_events(
        &self,
        keys: impl IntoIterator<Item = SubjectKey>,
    ) -> Result<Vec<(SubjectKey, StoredEvent)>, LaneError> {
        let read = async |key: SubjectKey| {
            let read = self.bulk_reads.raw_message_builder().last_by_subject(key.subject()).send().await;
            Ok(read_message(read)?.and_then(|(message, _)| message.event()).map(|event| (key, event)))
        };
        let events = collect_in_time(stream::iter(keys).map(read).buffer_unordered(READS_AT_ONCE)).await?;
        Ok(events.into_iter().flatten().collect())
    }

    /// Returns the messages that exist among these sequences, oldest first, with their subjects.
    pub async fn messages_in(&self, sequences: RangeInclusive<u64>) -> Result<Vec<(LastMessage, String)>, LaneError> {
        let read = async |sequence| read_message(self.bulk_reads.raw_message_builder().sequence(sequence).send().await);
        let messages = collect_in_time(stream::iter(sequences).map(read).buffered(READS_AT_ONCE)).await?;
        Ok(messages.into_iter().flatten().collect())
    }
}

/// Collects answers, as long as the next one comes within the timeout.
async fn collect_in_time<T>(answers: impl Stream<Item = Result<T, LaneError>>) -> Result<Vec<T>, LaneError> {
    let mut answers = pin!(answers);
    let mut collected = Vec::new();
    while let Some(answer) = timeout(ANSWER_WITHIN, answers.next())
        .await
        .map_err(|_| LaneError::Broker(format!("no message came for {} s", ANSWER_WITHIN.as_secs())))?
    {
        collected.push(answer?);
    }
    Ok(collected)
}

fn not_found(error: &GetStreamError) -> LaneError {
    match error.kind() {
        GetStreamErrorKind::JetStream(answer) => LaneError::Unavailable(format!("stream {EVENTS_STREAM}: {answer}")),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::Request => {
            LaneError::Broker(format!("stream {EVENTS_STREAM}: {error}"))
        }
    }
}

fn extent(info: &Info) -> StreamExtent {
    let Info { created, state, .. } = info;
    // Postgres keeps microseconds, the broker nanoseconds.
    let created = created.trunc_subsecs(6);
    StreamExtent { created, first: state.first_sequence, last: state.last_sequence, messages: state.messages }
}

type RawRead = Result<jetstream::message::StreamMessage, jetstream::stream::RawMessageError>;

fn read_message(read: RawRead) -> Result<Option<(LastMessage, String)>, LaneError> {
    let message = match read {
        Ok(message) => message,
        Err(error) => {
            return match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(answer) => Err(LaneError::Unavailable(answer.to_string())),
                LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
                    Err(LaneError::Broker(error.to_string()))
                }
            };
        }
    };
    let text = |name: &str| message.headers.get(name).map(async_nats::HeaderValue::as_str);
    let version = text(header::AGGREGATE_VERSION).and_then(|version| version.parse().ok());
    let event_id = text(header::MESSAGE_ID).and_then(|id| id.split('/').next()?.parse().ok());
    let sequence = message.sequence;
    let read = match (version, event_id) {
        (Some(version), Some(event_id)) => LastMessage::Event(StoredEvent { version, event_id, sequence }),
        // A relay always writes both headers.
        (None, _) | (_, None) => LastMessage::Foreign { sequence },
    };
    Ok(Some((read, message.subject.to_string())))
}
