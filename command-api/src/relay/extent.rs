//! What the stream's own numbers say of a loss: a rule without I/O.

use chrono::{DateTime, Utc};

/// How much a stream holds, and from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub created: DateTime<Utc>,
    pub first: u64,
    pub last: u64,
    pub messages: u64,
}

impl Extent {
    /// How a stream that looks like this has lost something since it looked like `before`; `acknowledged` is the newest sequence
    /// that it told us of in between, 0 for none.
    ///
    /// Only a message that comes makes room, for itself and on its own subject: by itself the number of messages never falls.
    pub fn lost_since(&self, before: &Self, acknowledged: u64) -> Option<String> {
        let Self { created, first, last, messages } = *self;
        if created != before.created {
            return Some(format!("the stream was made anew at {created}"));
        }
        if last < before.last.max(acknowledged) {
            return Some(format!("the stream went back from sequence {} to {last}", before.last.max(acknowledged)));
        }
        if messages < before.messages {
            return Some(format!("the stream holds {messages} messages, and held {}", before.messages));
        }
        // Purged, and filled again meanwhile.
        let held = if before.messages > 0 { before.last } else { acknowledged };
        if held > 0 && first > held {
            return Some(format!("the stream begins at sequence {first}, beyond all that it held"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_makes_room_is_no_loss_and_what_goes_by_itself_is() {
        let extent = |first, last, messages| Extent { created: DateTime::UNIX_EPOCH, first, last, messages };
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
            (Extent { created: DateTime::<Utc>::MAX_UTC, ..before }, before, 0, true),
        ] {
            let why = now.lost_since(&before, acknowledged);
            assert_eq!(why.is_some(), lost, "{now:?} after {before:?}, {acknowledged} acknowledged: {why:?}");
        }
    }
}
