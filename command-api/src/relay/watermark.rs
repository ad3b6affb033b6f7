//! The watermark of each shard: the last event of the shard that the broker acknowledged, kept in Postgres.
//!
//! A broker can lose what it acknowledged: its store is restored from a backup, or the stream is deleted and created again. It then
//! assigns the same sequences again, so only the event at the watermark's sequence proves that nothing was lost (PROTOCOL R5).
//!
//! A watermark only moves forward, and only after a check that the stream lost nothing: a watermark that moved past a loss would
//! hide it. After a loss the watermarks are invalid until the repair of their shards is complete (decision 0203).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::LaneError;
use super::broker::Broker;
use super::event::{JournalEvent, StoredEvent};
use super::resolve::LastMessage;
use super::session::{LaneConnections, RelaySession};

/// Rows that are worth a delete while more events are waiting: the check for a loss and the watermarks cost the same for one batch
/// as for several. If the relay dies before the delete, its successor finds these events in the stream, aggregate by aggregate.
const DELETE_AT: usize = 2000;

/// The sequence of a watermark whose shard has no event in the stream. The first message of a stream has sequence 1.
const NO_SEQUENCE: i64 = 0;

/// An event that the stream holds, and its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub subject: String,
    pub stored: StoredEvent,
}

/// The watermarks of a lane's shards, and the outbox rows that were acknowledged but not deleted yet.
#[derive(Default)]
pub struct Watermarks {
    by_shard: BTreeMap<i16, Watermark>,
    /// By shard and seq.
    acknowledged: Vec<(i16, i64)>,
}

impl Watermarks {
    /// Adds the watermark of a shard that was taken.
    pub fn add(&mut self, shard: i16, watermark: Watermark) {
        self.by_shard.insert(shard, watermark);
    }

    /// Records that the stream holds the event, or a later one of its aggregate.
    pub fn acknowledge(&mut self, event: &JournalEvent, stored: StoredEvent) {
        let shard = event.shard();
        self.acknowledged.push((shard, event.seq));
        if self.by_shard.get(&shard).is_none_or(|mark| mark.stored.sequence < stored.sequence) {
            self.by_shard.insert(shard, Watermark { subject: event.key.subject(), stored });
        }
    }

    /// Returns whether so many rows are acknowledged that a delete pays while others are waiting.
    pub fn delete_pays(&self) -> bool {
        self.acknowledged.len() >= DELETE_AT
    }

    /// Returns whether there is nothing to delete.
    pub fn none_acknowledged(&self) -> bool {
        self.acknowledged.is_empty()
    }

    /// Deletes the acknowledged rows from the outbox and moves the watermarks of their shards; returns those. The caller has just
    /// checked that the stream lost nothing.
    pub async fn delete_acknowledged(&mut self, connections: &mut LaneConnections) -> Result<Vec<(i16, Watermark)>, LaneError> {
        let rows = std::mem::take(&mut self.acknowledged);
        let shards: BTreeSet<i16> = rows.iter().map(|(shard, _)| *shard).collect();
        let moved = self.of(shards);
        delete_and_move(&mut connections.session, connections.broker.stream_created(), &rows, &moved).await?;
        Ok(moved)
    }

    /// Writes the watermarks of repaired shards, which makes them valid again.
    pub async fn validate(&self, connections: &mut LaneConnections, shards: &[i16]) -> Result<(), LaneError> {
        let marks = self.of(shards.iter().copied());
        validate(&mut connections.session, connections.broker.stream_created(), shards, &marks).await
    }

    fn of(&self, shards: impl IntoIterator<Item = i16>) -> Vec<(i16, Watermark)> {
        shards.into_iter().filter_map(|shard| self.by_shard.get(&shard).map(|mark| (shard, mark.clone()))).collect()
    }
}

/// Watermarks, column by column.
struct WatermarkColumns {
    shards: Vec<i16>,
    sequences: Vec<i64>,
    subjects: Vec<String>,
    versions: Vec<i64>,
    event_ids: Vec<Uuid>,
}

impl WatermarkColumns {
    fn of(marks: &[(i16, Watermark)]) -> Self {
        Self {
            shards: marks.iter().map(|(shard, _)| *shard).collect(),
            sequences: marks.iter().map(|(_, mark)| mark.stored.sequence.cast_signed()).collect(),
            subjects: marks.iter().map(|(_, mark)| mark.subject.clone()).collect(),
            versions: marks.iter().map(|(_, mark)| mark.stored.version.cast_signed()).collect(),
            event_ids: marks.iter().map(|(_, mark)| mark.stored.event_id).collect(),
        }
    }
}

/// Deletes rows and moves the watermarks of their shards forward, in one statement. An invalid watermark stays invalid.
async fn delete_and_move(
    session: &mut RelaySession,
    created: DateTime<Utc>,
    done: &[(i16, i64)],
    marks: &[(i16, Watermark)],
) -> Result<(), LaneError> {
    let (shards, seqs): (Vec<i16>, Vec<i64>) = done.iter().copied().unzip();
    let marks = WatermarkColumns::of(marks);
    session
        .run(async |connection| {
            sqlx::query!(
                "with gone as (
                     delete from command.outbox where ctid = any (array (
                         select o.ctid from unnest($1::smallint[], $2::bigint[]) as done (shard, seq)
                          cross join lateral (select ctid from command.outbox where shard = done.shard and seq = done.seq offset 0) as o)))
                 insert into command.relay_mark as held (shard, stream_created, seq, subject, version, event_id)
                 select m.shard, $3, m.seq, m.subject, m.version, m.event_id
                   from unnest($4::smallint[], $5::bigint[], $6::text[], $7::bigint[], $8::uuid[]) as m (shard, seq, subject, version, event_id)
                 on conflict (shard) do update set seq = excluded.seq,
                    subject = excluded.subject, version = excluded.version, event_id = excluded.event_id
                  where held.stream_created = excluded.stream_created and held.seq < excluded.seq",
                &shards,
                &seqs,
                created,
                &marks.shards,
                &marks.sequences,
                &marks.subjects,
                &marks.versions,
                &marks.event_ids,
            )
            .execute(connection)
            .await
        })
        .await?;
    Ok(())
}

/// Invalidates the watermarks of these shards, by a stream creation time that no stream has. Whoever takes the shards next repairs
/// them first.
pub async fn invalidate(session: &mut RelaySession, shards: &[i16]) -> Result<(), LaneError> {
    session
        .run(async |connection| {
            sqlx::query!("update command.relay_mark set stream_created = 'epoch' where shard = any($1)", shards)
                .execute(connection)
                .await
        })
        .await?;
    Ok(())
}

/// Invalidates every watermark; the owners of the shards release them.
///
/// Locks the rows in the same order as [`delete_and_move`], so that the two cannot deadlock.
pub async fn invalidate_all(session: &mut RelaySession) -> Result<(), LaneError> {
    session
        .run(async |connection| {
            sqlx::query!(
                "with held as (select shard from command.relay_mark order by shard for update)
                 update command.relay_mark set stream_created = 'epoch' from held where relay_mark.shard = held.shard"
            )
            .execute(connection)
            .await
        })
        .await?;
    Ok(())
}

/// Returns whether a watermark of these shards is invalid.
pub async fn is_any_invalid(session: &mut RelaySession, shards: &[i16]) -> Result<bool, LaneError> {
    session
        .run(async |connection| {
            sqlx::query_scalar!(
                r#"select exists (select from command.relay_mark where shard = any($1) and stream_created = 'epoch') as "doubtful!""#,
                shards
            )
            .fetch_one(connection)
            .await
        })
        .await
}

/// Makes the watermarks of these shards valid: the stream holds every event of them that it takes. A shard without any such event
/// gets the sequence [`NO_SEQUENCE`].
async fn validate(
    session: &mut RelaySession,
    created: DateTime<Utc>,
    shards: &[i16],
    marks: &[(i16, Watermark)],
) -> Result<(), LaneError> {
    let marks = WatermarkColumns::of(marks);
    session
        .run(async |connection| {
            sqlx::query!(
                "update command.relay_mark as held
                    set stream_created = $1, seq = coalesce(m.seq, 0), subject = coalesce(m.subject, held.subject),
                        version = coalesce(m.version, held.version), event_id = coalesce(m.event_id, held.event_id)
                   from unnest($2::smallint[]) as repaired (shard)
                   left join unnest($3::smallint[], $4::bigint[], $5::text[], $6::bigint[], $7::uuid[]) as m (shard, seq, subject, version, event_id)
                     on m.shard = repaired.shard
                  where held.shard = repaired.shard",
                created,
                shards,
                &marks.shards,
                &marks.sequences,
                &marks.subjects,
                &marks.versions,
                &marks.event_ids,
            )
            .execute(connection)
            .await
        })
        .await?;
    Ok(())
}

/// Whether the stream still holds what was acknowledged for a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatermarkCheck {
    /// No event of the shard was acknowledged.
    NoWatermark,
    /// The stream holds everything up to the watermark.
    Intact(Watermark),
    /// The stream has lost something.
    Lost(String),
}

/// Checks whether the stream still holds the event at the watermark of this shard.
pub async fn check(session: &mut RelaySession, broker: &Broker, shard: i16) -> Result<WatermarkCheck, LaneError> {
    let row = session
        .run(async |connection| {
            sqlx::query!("select stream_created, seq, subject, version, event_id from command.relay_mark where shard = $1", shard)
                .fetch_optional(connection)
                .await
        })
        .await?;
    let Some(row) = row else { return Ok(WatermarkCheck::NoWatermark) };
    if row.stream_created == DateTime::UNIX_EPOCH {
        return Ok(WatermarkCheck::Lost("a loss was detected before, and its repair is not complete".to_owned()));
    }
    if row.stream_created != broker.stream_created() {
        return Ok(WatermarkCheck::Lost(format!("the stream was created again at {}", broker.stream_created())));
    }
    if row.seq == NO_SEQUENCE {
        return Ok(WatermarkCheck::NoWatermark);
    }
    let stored = StoredEvent { version: row.version.cast_unsigned(), event_id: row.event_id, sequence: row.seq.cast_unsigned() };
    let at_sequence = broker.message_at(stored.sequence).await?;
    let last = match at_sequence {
        // The stream keeps a number of messages per subject: later ones may have displaced this one.
        None => broker.last_message(&row.subject).await?,
        Some(_) => LastMessage::None,
    };
    Ok(is_intact(Watermark { subject: row.subject, stored }, at_sequence.map(|(message, _)| message), last))
}

/// Returns the highest sequence of the watermarks of these shards, invalid ones included: the stream held it once.
pub async fn highest_sequence(session: &mut RelaySession, shards: &[i16]) -> Result<u64, LaneError> {
    let highest = session
        .run(async |connection| {
            sqlx::query_scalar!(r#"select coalesce(max(seq), 0) as "seq!" from command.relay_mark where shard = any($1)"#, shards)
                .fetch_one(connection)
                .await
        })
        .await?;
    Ok(highest.cast_unsigned())
}

/// The rule of [`check`].
fn is_intact(mark: Watermark, at_sequence: Option<LastMessage>, last: LastMessage) -> WatermarkCheck {
    let StoredEvent { version, event_id, sequence } = mark.stored;
    match (at_sequence, last) {
        (Some(LastMessage::Event(there)), _) if there.event_id == event_id => WatermarkCheck::Intact(mark),
        (Some(_), _) => WatermarkCheck::Lost(format!("sequence {sequence} holds another message than event {event_id}")),
        (None, LastMessage::Event(newer)) if newer.version >= version => WatermarkCheck::Intact(mark),
        (None, _) => WatermarkCheck::Lost(format!("event {event_id} at sequence {sequence} is gone, and no newer one is stored")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_itself_or_a_newer_one_proves_that_nothing_was_lost() {
        let stored = |version, id| StoredEvent { version, event_id: Uuid::from_u128(id), sequence: 70 };
        let mark = Watermark { subject: "listings.events.a_newer_programs.1".to_owned(), stored: stored(4, 1) };
        let event = |version, id| LastMessage::Event(stored(version, id));
        for (at_mark, last, whole) in [
            (Some(event(4, 1)), LastMessage::None, true),
            (Some(event(4, 2)), LastMessage::None, false),
            (Some(LastMessage::Foreign { sequence: 70 }), LastMessage::None, false),
            (None, event(4, 2), true),
            (None, event(5, 2), true),
            (None, event(3, 2), false),
            (None, LastMessage::None, false),
            (None, LastMessage::Foreign { sequence: 71 }, false),
        ] {
            assert_eq!(
                matches!(is_intact(mark.clone(), at_mark, last), WatermarkCheck::Intact(_)),
                whole,
                "{at_mark:?} {last:?}"
            );
        }
    }
}
