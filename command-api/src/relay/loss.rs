//! Whether the stream has lost messages that the broker acknowledged (PROTOCOL R5, decision 0203).

use super::LaneError;
use super::session::{LaneConnections, RelaySession};
use super::stream_extent::StreamExtent;
use super::watermark;

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
