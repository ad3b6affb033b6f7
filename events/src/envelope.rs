//! The wire format of events: `CloudEvents` 1.0 in NATS binary mode, a JSON body `{"change": …, "state": …}`.
//!
//! The bytes are encoded once, in the command's transaction, and stay those bytes through journal, stream and dead letter.

use std::{borrow::Cow, collections::BTreeMap, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Aggregate, AggregateKey, Change as _, EventId, Timestamp, UserId, upcast};

/// Names of the headers of an event.
pub mod header {
    pub const ID: &str = "ce-id";
    pub const TYPE: &str = "ce-type";
    pub const SOURCE: &str = "ce-source";
    pub const SPEC_VERSION: &str = "ce-specversion";
    pub const TIME: &str = "ce-time";
    pub const SUBJECT: &str = "ce-subject";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const AGGREGATE_VERSION: &str = "Aggregate-Version";
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    pub const TRACE_PARENT: &str = "traceparent";
    /// The id of the user who caused the event.
    pub const CAUSED_BY: &str = "Caused-By";
    /// The task of the system that caused the event, instead of a user.
    pub const CAUSED_BY_SYSTEM: &str = "Caused-By-System";
    pub const CORRELATION_ID: &str = "Correlation-Id";
}

/// The value of `ce-source`.
const SOURCE: &str = "/listings/command-api";
/// Each header line adds `": "` and a line end.
const HEADER_LINE_OVERHEAD: usize = 4;
/// `NATS/1.0`, its line end, and the empty line that ends the headers.
const HEADER_BLOCK_OVERHEAD: usize = 12;

/// Headers by name, each name once.
pub type Headers = BTreeMap<String, String>;

/// A received event: its envelope, and a body that is decoded only as far as somebody needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub meta: Meta,
    /// In the current version of its event type.
    body: Bytes,
}

/// An event that is about to be written: the change, and the whole state after it (`None` once the aggregate is gone).
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent<'a, A: Aggregate> {
    pub meta: Meta,
    pub change: &'a A::Change,
    pub state: Option<&'a A>,
}

/// The envelope of an event: which event it is, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub id: EventId,
    pub key: AggregateKey,
    /// The aggregate's version after the event.
    pub version: u64,
    pub time: Timestamp,
    /// Who caused it; `None` if the event does not say, or names a system task that this program does not know.
    pub caused_by: Option<CausedBy>,
    /// The id of the request that caused it: visible ASCII.
    pub correlation_id: Option<String>,
    /// W3C trace context of that request.
    pub trace_parent: Option<String>,
}

/// Who caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CausedBy {
    User(UserId),
    System(SystemTask),
}

/// A task of the system that changes aggregates on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SystemTask {
    /// Ends reservations, orders and the like when their time is over.
    Expiry,
    /// Applies price and stock feeds.
    Intake,
    /// Repairs state after a loss.
    Repair,
}

impl SystemTask {
    pub const ALL: [Self; 3] = [Self::Expiry, Self::Intake, Self::Repair];

    /// The name in the event's headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Intake => "intake",
            Self::Repair => "repair",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == name)
    }
}

/// An encoded event, as the journal, the stream and a dead letter store it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub id: EventId,
    pub key: AggregateKey,
    pub version: u64,
    pub event_type: &'static str,
    pub headers: Headers,
    pub body: Bytes,
}

impl Recorded {
    /// Body and headers as the broker counts them, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + headers_size(&self.headers)
    }
}

/// A header block as the broker counts it, in bytes.
#[must_use]
pub fn headers_size(headers: &Headers) -> usize {
    HEADER_BLOCK_OVERHEAD + headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_LINE_OVERHEAD).sum::<usize>()
}

#[derive(Serialize)]
struct NewBody<'a, C, S> {
    change: &'a C,
    state: Option<&'a S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
struct BodyState<S> {
    // Without this a missing state would read as a deletion.
    #[serde(deserialize_with = "Option::deserialize")]
    state: Option<S>,
}

#[derive(Deserialize)]
struct BodyChange<C> {
    change: C,
}

#[derive(Deserialize)]
struct ChangeType<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl<A: Aggregate> NewEvent<'_, A> {
    /// Encodes the event. The bytes and headers stay what they are from here on.
    ///
    /// # Errors
    /// Never for the states and changes of this crate, whose keys are strings and whose numbers are finite.
    pub fn encode(&self) -> Result<Recorded, serde_json::Error> {
        let body = serde_json::to_vec(&NewBody { change: self.change, state: self.state })?;
        let event_type = self.change.event_type();
        let Meta { id, key, version, time, caused_by, correlation_id, trace_parent } = &self.meta;
        let mut headers: Headers = [
            (header::ID, id.to_string()),
            (header::TYPE, event_type.to_owned()),
            (header::SOURCE, SOURCE.to_owned()),
            (header::SPEC_VERSION, "1.0".to_owned()),
            (header::TIME, time.to_string()),
            (header::SUBJECT, key.id.to_string()),
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::AGGREGATE_VERSION, version.to_string()),
            (header::MESSAGE_ID, id.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let caused_by = caused_by.map(|caused_by| match caused_by {
            CausedBy::User(user) => (header::CAUSED_BY, user.to_string()),
            CausedBy::System(task) => (header::CAUSED_BY_SYSTEM, task.as_str().to_owned()),
        });
        let correlation_id = correlation_id.clone().map(|id| (header::CORRELATION_ID, id));
        let trace_parent = trace_parent.clone().map(|context| (header::TRACE_PARENT, context));
        let optional = [caused_by, correlation_id, trace_parent];
        headers.extend(optional.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)));
        Ok(Recorded { id: *id, key: *key, version: *version, event_type, headers, body: body.into() })
    }
}

impl Event {
    /// Reads the envelope of what [`NewEvent::encode`] wrote, and brings the body to the current version of its type. `header` looks
    /// a header up by its name. The body itself is not decoded yet.
    ///
    /// # Errors
    /// [`DecodeError::Newer`] if a newer program wrote the event; otherwise the event cannot be read by any program.
    pub fn decode<'h>(
        key: AggregateKey,
        header: impl Fn(&str) -> Option<&'h str>,
        body: impl Into<Bytes>,
    ) -> Result<Self, DecodeError> {
        fn read<T: FromStr>(name: &'static str, value: &str) -> Result<T, DecodeError> {
            value.parse().map_err(|_| DecodeError::HeaderUnreadable(name))
        }
        let required = |name: &'static str| header(name).ok_or(DecodeError::HeaderMissing(name));

        let event_type = required(header::TYPE)?;
        match key.kind.is_newer(event_type) {
            Some(false) => {}
            Some(true) => return Err(DecodeError::Newer { event_type: event_type.to_owned() }),
            None => return Err(DecodeError::HeaderUnreadable(header::TYPE)),
        }
        let by_user = header(header::CAUSED_BY).map(|user| read(header::CAUSED_BY, user)).transpose()?;
        let by_system = || header(header::CAUSED_BY_SYSTEM).and_then(SystemTask::from_name);
        let meta = Meta {
            id: read(header::ID, required(header::ID)?)?,
            key,
            version: read(header::AGGREGATE_VERSION, required(header::AGGREGATE_VERSION)?)?,
            time: read(header::TIME, required(header::TIME)?)?,
            caused_by: by_user.map(CausedBy::User).or_else(|| by_system().map(CausedBy::System)),
            correlation_id: header(header::CORRELATION_ID).map(str::to_owned),
            trace_parent: header(header::TRACE_PARENT).map(str::to_owned),
        };
        let body = upcast::to_current(event_type, body.into(), key.kind.upcasters())?;
        Ok(Self { meta, body })
    }

    /// Whether the event is about an aggregate of kind `A`.
    #[must_use]
    pub fn is_of<A: Aggregate>(&self) -> bool {
        self.meta.key.kind == A::KIND
    }

    /// Decodes the state after the event; `None` once the aggregate is gone. The change is not decoded: whatever it is, the state
    /// can be applied.
    ///
    /// # Errors
    /// If the state cannot be read, or belongs to another aggregate or version than the envelope says: it would be written to
    /// the wrong place.
    pub fn state<A: Aggregate>(&self) -> Result<Option<A>, DecodeError> {
        let Meta { key, version, .. } = &self.meta;
        if !self.is_of::<A>() {
            return Err(DecodeError::Disagrees);
        }
        let BodyState { state } = serde_json::from_slice::<BodyState<A>>(&self.body)?;
        match state {
            Some(state) if state.id() != key.id || state.version() != *version => Err(DecodeError::Disagrees),
            state => Ok(state),
        }
    }

    /// Decodes the change; `None` if this program does not know its type, because a newer program wrote it.
    ///
    /// # Errors
    /// If the change has a known type and cannot be read.
    pub fn change<A: Aggregate>(&self) -> Result<Option<A::Change>, DecodeError> {
        if !self.is_of::<A>() {
            return Err(DecodeError::Disagrees);
        }
        let BodyChange { change } = serde_json::from_slice::<BodyChange<ChangeType<'_>>>(&self.body)?;
        if !A::KIND.event_types().contains(&&*change.r#type) {
            return Ok(None);
        }
        let BodyChange { change } = serde_json::from_slice::<BodyChange<A::Change>>(&self.body)?;
        Ok(Some(change))
    }
}

/// Why an event cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The type has a higher major version than this program knows. The event is sound: a newer program reads it.
    #[error("its type {event_type} was written by a newer program; upgrade this one")]
    Newer { event_type: String },
    #[error("header {0} is missing")]
    HeaderMissing(&'static str),
    #[error("header {0} cannot be read")]
    HeaderUnreadable(&'static str),
    #[error("the state is of another aggregate or version than the envelope says")]
    Disagrees,
    #[error("the body cannot be read")]
    Body(#[from] serde_json::Error),
}
