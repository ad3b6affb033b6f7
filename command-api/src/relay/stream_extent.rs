//! The numbers that a stream tells about itself, and what they say about a loss.
//!
//! A stream removes a message only to make room on that message's own subject for a new one. So its number of messages never
//! falls, and its last sequence never goes back, unless messages were lost, purged or deleted.

use chrono::{DateTime, Utc};

/// When a stream was created, its first and last sequence, and its number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamExtent {
    pub created: DateTime<Utc>,
    pub first: u64,
    pub last: u64,
    pub messages: u64,
}

impl StreamExtent {
    /// Returns what was lost between the observations `before` and `self`. `acknowledged` is the newest sequence that
    /// the broker acknowledged in between, 0 for none.
    pub fn loss_since(&self, before: &Self, acknowledged: u64) -> Option<String> {
        let Self { created, first, last, messages } = *self;
        if created != before.created {
            return Some(format!("the stream was created again at {created}"));
        }
        if last < before.last.max(acknowledged) {
            return Some(format!("the stream went back from sequence {} to {last}", before.last.max(acknowledged)));
        }
        if messages < before.messages {
            return Some(format!("the stream holds {messages} messages, fewer than the {} before", before.messages));
        }
        // Purged, and filled again since.
        let end = if before.messages > 0 { before.last } else { acknowledged };
        if end > 0 && first > end {
            return Some(format!("the stream begins at sequence {first}, after everything that it held"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_makes_room_is_no_loss_and_what_goes_by_itself_is() {
        let extent = |first, last, messages| StreamExtent { created: DateTime::UNIX_EPOCH, first, last, messages };
        let (empty, before) = (extent(0, 0, 0), extent(5, 20, 12));
        for (now, before, acknowledged, lost) in [
            // Nothing came; some came; some came and each made room.
            (before, before, 0, false),
            (extent(5, 25, 17), before, 25, false),
            (extent(9, 25, 12), before, 25, false),
            (empty, empty, 0, false),
            (extent(1, 3, 3), empty, 3, false),
            // An empty stream that was purged before begins behind its last sequence.
            (extent(21, 20, 0), extent(21, 20, 0), 0, false),
            (extent(21, 22, 2), extent(21, 20, 0), 22, false),
            // One message deleted; all of them; all, and as many again; what was acknowledged a moment ago.
            (extent(5, 20, 11), before, 0, true),
            (extent(21, 20, 0), before, 0, true),
            (extent(21, 40, 20), before, 30, true),
            (extent(4, 3, 0), empty, 3, true),
            (extent(4, 6, 3), empty, 3, true),
            // An older copy put back, before and after it went on.
            (extent(5, 18, 12), before, 0, true),
            (extent(5, 22, 14), before, 25, true),
            // Another stream of the same name.
            (StreamExtent { created: DateTime::<Utc>::MAX_UTC, ..before }, before, 0, true),
        ] {
            let why = now.loss_since(&before, acknowledged);
            assert_eq!(why.is_some(), lost, "{now:?} after {before:?}, {acknowledged} acknowledged: {why:?}");
        }
    }
}
