//! Whether the database went back: it was restored, or failed over to a copy that lacks what it had acknowledged.
//!
//! The stream is then ahead of the journal. What the stream holds beyond the last watermark is normally what was in flight when a
//! relay died, and the journal has all of it. The aggregates whose events the journal lacks are deferred until an operator
//! decides; nothing of theirs is deleted.

use std::collections::HashMap;

use tracing::error;

use super::LaneError;
use super::deferred::DeferredAggregates;
use super::event::{StoredEvent, SubjectKey};
use super::journal_reader::event_ids;
use super::resolve::divergence;
use super::session::LaneConnections;
use super::status::RelayStatus;
use super::watermark;

/// Messages read from the end of the stream back, even below the watermarks: a later owner of these shards may have moved the
/// watermarks past a divergence.
const MESSAGES_READ: u64 = 2_000;

/// Defers the aggregates of this lane whose last events the journal lacks.
pub async fn defer_diverged(
    connections: &mut LaneConnections,
    shards: &[i16],
    status: &RelayStatus,
    deferred: &mut DeferredAggregates,
) -> Result<(), LaneError> {
    let mut last_events = newest_events(connections, shards).await?;
    // A divergence found earlier counts until its last event is proven to be the journal's.
    let earlier = status.diverged(shards);
    let read = connections.broker.last_events(earlier.iter().cloned());
    last_events.extend(connections.session.keep_alive_while(read).await??);
    let versions = last_events.iter().map(|(key, stored)| (key, stored.version));
    let journal = event_ids(&mut connections.session, versions).await?;
    for key in &earlier {
        status.resumed(key);
    }
    let mut diverged = 0;
    for ((key, stored), journal) in last_events.into_iter().zip(journal) {
        if let Some(divergence) = divergence(&stored, journal) {
            diverged += 1;
            deferred.defer(key, divergence.to_string(), true);
        }
    }
    if diverged > 0 {
        error!(
            aggregates = diverged,
            "The database was restored to an earlier point: the stream is ahead of the journal for {diverged} aggregates, which are not \
             published"
        );
    }
    Ok(())
}

/// Reads the last event of each aggregate of these shards among the messages beyond the shards' watermarks.
///
/// The watermarks of other shards are ignored: they may have moved since the database went back.
async fn newest_events(connections: &mut LaneConnections, shards: &[i16]) -> Result<HashMap<SubjectKey, StoredEvent>, LaneError> {
    let extent = connections.broker.extent_at_connect();
    let watermark = watermark::highest_sequence(&mut connections.session, shards).await?;
    let first = (watermark.min(extent.last.saturating_sub(MESSAGES_READ)) + 1).max(extent.first);
    let messages = connections.session.keep_alive_while(connections.broker.messages_in(first..=extent.last)).await??;
    let of_these_shards = messages.into_iter().filter_map(|(message, subject)| {
        let key = SubjectKey::from_subject(&subject).filter(|key| shards.contains(&key.shard()))?;
        Some((key, message.event()?))
    });
    Ok(of_these_shards.collect())
}
