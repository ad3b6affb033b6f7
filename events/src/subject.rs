//! Names of streams and subjects, and the largest event: what all programs and the broker's configuration must agree on.

/// The stream of all events.
pub const EVENTS_STREAM: &str = "LISTINGS_EVENTS";
/// The stream of dead letters: events that a projection could not apply.
pub const DLQ_STREAM: &str = "LISTINGS_DLQ";
/// The first tokens of every event's subject.
pub const EVENTS_PREFIX: &str = "listings.events";
/// The first tokens of every dead letter's subject.
pub const DLQ_PREFIX: &str = "listings.dlq";
/// The largest event, body and headers together, in bytes. A command that would make a larger one answers 413; the
/// broker's `max_payload` and the stream's `max_msg_size` leave room above it (PROTOCOL W5).
pub const EVENT_MAX: usize = 2_621_440;
