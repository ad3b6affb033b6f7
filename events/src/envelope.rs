//! How a fact travels: `CloudEvents` 1.0 in NATS binary mode, a JSON body `{"change": …, "state": …}`.
//!
//! The bytes are encoded once, in the command's transaction, and stay those bytes through journal, stream and dead letter.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Aggregate, AggregateKey, EventId, Listing, ListingChange, Stock, StockChange, Timestamp, UserId, upcast};

/// Names of the headers that an event travels with.
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
    pub const CAUSED_BY: &str = "Caused-By";
    pub const CORRELATION_ID: &str = "Correlation-Id";
}

/// Where events come from, in `ce-source`.
const SOURCE: &str = "/listings/command-api";
/// Each header line adds `": "` and a line end.
const HEADER_LINE_OVERHEAD: usize = 4;
/// `NATS/1.0`, its line end, and the empty line that ends the headers.
const HEADER_BLOCK_OVERHEAD: usize = 12;

/// Headers by name. Each name comes once.
pub type Headers = BTreeMap<String, String>;

/// Something that happened to one aggregate, and the aggregate afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub meta: Meta,
    pub fact: Fact,
}

/// Which event this is, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub id: EventId,
    pub key: AggregateKey,
    /// The aggregate's version after it.
    pub version: u64,
    pub time: Timestamp,
    /// Who asked for it.
    pub caused_by: Option<UserId>,
    /// The id of the request that it was done for: visible ASCII.
    pub correlation_id: Option<String>,
    /// W3C trace context of the request.
    pub trace_parent: Option<String>,
}

/// What happened, and the whole state afterwards: `None` once the aggregate is gone.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all facts are of listings; a box would cost each of them an allocation")]
pub enum Fact {
    Listing { change: ListingChange, state: Option<Listing> },
    Stock { change: StockChange, state: Option<Stock> },
}

impl Fact {
    /// The event's `ce-type`.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Listing { change, .. } => change.event_type(),
            Self::Stock { change, .. } => change.event_type(),
        }
    }
}

/// An event as journal, stream and dead letter hold it.
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
struct BodyRef<'a, C, S> {
    change: &'a C,
    state: Option<&'a S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "C: Deserialize<'de>, S: Deserialize<'de>"))]
struct Body<C, S> {
    change: C,
    // Without this a missing state would read as a deletion.
    #[serde(deserialize_with = "Option::deserialize")]
    state: Option<S>,
}

impl Event {
    /// The bytes and headers that this event has from now on.
    ///
    /// # Errors
    /// Never for the states and changes of this crate, whose keys are strings and whose numbers are finite.
    pub fn encode(&self) -> Result<Recorded, serde_json::Error> {
        let body = match &self.fact {
            Fact::Listing { change, state } => serde_json::to_vec(&BodyRef { change, state: state.as_ref() }),
            Fact::Stock { change, state } => serde_json::to_vec(&BodyRef { change, state: state.as_ref() }),
        }?;
        let Meta { id, key, version, time, caused_by, correlation_id, trace_parent } = &self.meta;
        let mut headers: Headers = [
            (header::ID, id.to_string()),
            (header::TYPE, self.fact.event_type().to_owned()),
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
        let optional = [
            (header::CAUSED_BY, caused_by.map(|id| id.to_string())),
            (header::CORRELATION_ID, correlation_id.clone()),
            (header::TRACE_PARENT, trace_parent.clone()),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Ok(Recorded { id: *id, key: *key, version: *version, event_type: self.fact.event_type(), headers, body: body.into() })
    }

    /// Reads what [`Event::encode`] wrote, in this version or a former one. `header` looks a header up by its name.
    pub fn decode<'h>(key: AggregateKey, header: impl Fn(&str) -> Option<&'h str>, body: &[u8]) -> Result<Self, DecodeError> {
        let required = |name: &'static str| header(name).ok_or(DecodeError::HeaderMissing(name));
        let unreadable = |name: &'static str| DecodeError::HeaderUnreadable(name);

        let meta = Meta {
            id: required(header::ID)?.parse().map_err(|_| unreadable(header::ID))?,
            key,
            version: required(header::AGGREGATE_VERSION)?.parse().map_err(|_| unreadable(header::AGGREGATE_VERSION))?,
            time: required(header::TIME)?.parse().map_err(|_| unreadable(header::TIME))?,
            caused_by: header(header::CAUSED_BY).map(str::parse).transpose().map_err(|_| unreadable(header::CAUSED_BY))?,
            correlation_id: header(header::CORRELATION_ID).map(str::to_owned),
            trace_parent: header(header::TRACE_PARENT).map(str::to_owned),
        };
        let body = upcast::to_current(required(header::TYPE)?, body, upcast::UPCASTERS)?;
        let fact = match key.aggregate {
            Aggregate::Listing => {
                let Body { change, state } = serde_json::from_slice::<Body<ListingChange, Listing>>(&body)?;
                agree(&meta, state.as_ref().map(|listing| (listing.id.0, listing.version)))?;
                Fact::Listing { change, state }
            }
            Aggregate::Stock => {
                let Body { change, state } = serde_json::from_slice::<Body<StockChange, Stock>>(&body)?;
                agree(&meta, state.as_ref().map(|stock| (stock.variant_id.0, stock.version)))?;
                Fact::Stock { change, state }
            }
        };
        Ok(Self { meta, fact })
    }
}

/// A state under another aggregate's subject, or with another version than its envelope, would be written to the wrong place.
fn agree(meta: &Meta, state: Option<(uuid::Uuid, u64)>) -> Result<(), DecodeError> {
    match state {
        Some((id, version)) if id != meta.key.id || version != meta.version => Err(DecodeError::Disagrees),
        Some(_) | None => Ok(()),
    }
}

/// Why bytes are no event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("header {0} is missing")]
    HeaderMissing(&'static str),
    #[error("header {0} cannot be read")]
    HeaderUnreadable(&'static str),
    #[error("the state is of another aggregate or version than the envelope says")]
    Disagrees,
    #[error("the body cannot be read")]
    Body(#[from] serde_json::Error),
}
