//! Whether the stream has lost messages that the broker acknowledged (PROTOCOL R5, decision 0203).
//!
//! A stream removes a message only to make room on that message's own subject for a new one. So its number of messages never
//! falls, and its last sequence never goes back, unless messages were lost, purged or deleted.

use chrono::{DateTime, Utc};

use super::LaneError;
use super::session::{LaneConnections, RelaySession};
use super::watermark;

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
    fn loss_since(&self, before: &Self, acknowledged: u64) -> Option<String> {
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

/// Detects losses while a lane works.
pub struct LossDetector<'a> {
    /// The extent at the last check. It outlives the lane's connections, so that a loss while the lane reconnects is seen too.
    extent: &'a mut StreamExtent,
    /// The highest sequence acknowledged on this connection.
    acknowledged: u64,
}

impl<'a> LossDetector<'a> {
    pub fn since(extent: &'a mut StreamExtent) -> Self {
        Self { extent, acknowledged: 0 }
    }

    /// Records the sequence of an ack. Fails if it is not above the ones before: the broker lost the end of the stream and gives
    /// its sequences again.
    pub fn record_ack(&mut self, sequence: u64) -> Result<(), LaneError> {
        if sequence <= self.acknowledged {
            let why = format!("the stream went back from sequence {} to {sequence}", self.acknowledged);
            return Err(LaneError::Unavailable(why));
        }
        self.acknowledged = sequence;
        Ok(())
    }

    /// Fails if the stream has lost something since the last check. Whoever takes a shard then repairs it first.
    ///
    /// Must run before every change of a watermark and before a gap is filled: an event published after a loss could hide it.
    pub async fn check(&mut self, connections: &mut LaneConnections) -> Result<(), LaneError> {
        let extent = connections.session.keep_alive_while(connections.broker.extent()).await??;
        let loss = extent.loss_since(self.extent, self.acknowledged);
        if loss.is_some() {
            // All shards: the lane that published the lost messages may not have seen them in its last check.
            watermark::invalidate_all(&mut connections.session).await?;
        }
        // Only now: if the statement failed, the next check must find the loss again.
        *self.extent = extent;
        loss.map_or(Ok(()), |why| Err(LaneError::Loss(why)))
    }

    /// Fails if another lane or process has detected a loss.
    pub async fn check_invalidated(session: &mut RelaySession, owned: &[i16]) -> Result<(), LaneError> {
        if watermark::is_any_invalid(session, owned).await? {
            return Err(LaneError::Loss("another lane has detected it".to_owned()));
        }
        Ok(())
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
