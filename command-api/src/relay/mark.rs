//! What the broker acknowledged last, per shard, kept in Postgres.
//!
//! A broker can lose what it acknowledged: a store restored from a backup, a stream deleted and made anew. It then gives the
//! same sequences again, so only the event at the marked sequence tells (PROTOCOL R5).
//!
//! A mark only moves forward, and only after a look at the stream has shown that nothing was lost before: a mark that moved past
//! a loss would hide it. Once a loss is seen, the marks are made doubtful, and stay so until a repair is complete.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Broken;
use super::broker::Broker;
use super::ownership::Session;
use super::resolve::{Last, Stored};

/// An event that the stream holds, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Text, because a newer program may have written it.
    pub subject: String,
    pub stored: Stored,
}

/// The sequence of a mark in a stream that holds nothing of its shard. The first message has sequence 1.
const NOTHING: i64 = 0;

/// Marks, column by column.
struct Columns {
    shards: Vec<i16>,
    sequences: Vec<i64>,
    subjects: Vec<String>,
    versions: Vec<i64>,
    event_ids: Vec<Uuid>,
}

impl Columns {
    fn of(marks: &[(i16, Mark)]) -> Self {
        Self {
            shards: marks.iter().map(|(shard, _)| *shard).collect(),
            sequences: marks.iter().map(|(_, mark)| mark.stored.sequence.cast_signed()).collect(),
            subjects: marks.iter().map(|(_, mark)| mark.subject.clone()).collect(),
            versions: marks.iter().map(|(_, mark)| mark.stored.version.cast_signed()).collect(),
            event_ids: marks.iter().map(|(_, mark)| mark.stored.event_id).collect(),
        }
    }
}

/// Deletes rows that the broker has acknowledged, and moves the marks of their shards forward: one statement, both or neither.
/// A doubtful mark stays doubtful.
pub async fn settle(
    session: &mut Session,
    created: DateTime<Utc>,
    done: &[(i16, i64)],
    marks: &[(i16, Mark)],
) -> Result<(), Broken> {
    let (shards, seqs): (Vec<i16>, Vec<i64>) = done.iter().copied().unzip();
    let marks = Columns::of(marks);
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

/// Makes the marks of these shards doubtful: they are of no stream, and whoever takes the shards next repairs them first.
pub async fn doubt(session: &mut Session, shards: &[i16]) -> Result<(), Broken> {
    session
        .run(async |connection| {
            sqlx::query!("update command.relay_mark set stream_created = 'epoch' where shard = any($1)", shards)
                .execute(connection)
                .await
        })
        .await?;
    Ok(())
}

/// Makes every mark doubtful: whoever owns the shard lets go of it.
///
/// In the order in which [`settle`] locks them, so that the two never wait for each other.
pub async fn doubt_all(session: &mut Session) -> Result<(), Broken> {
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

/// Whether a mark of these shards is doubtful.
pub async fn is_doubtful(session: &mut Session, shards: &[i16]) -> Result<bool, Broken> {
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

/// Ends the doubt: the stream holds everything of these shards again that it takes. Where that is nothing there is no mark any more.
pub async fn trust(session: &mut Session, created: DateTime<Utc>, shards: &[i16], marks: &[(i16, Mark)]) -> Result<(), Broken> {
    let marks = Columns::of(marks);
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

/// What the stream has of what a shard's mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing was ever acknowledged.
    Unmarked,
    /// All of it, up to the mark.
    All(Mark),
    /// Not all.
    Lost(String),
}

/// Looks whether the stream still holds what it acknowledged last for this shard.
pub async fn check(session: &mut Session, broker: &Broker, shard: i16) -> Result<Kept, Broken> {
    let row = session
        .run(async |connection| {
            sqlx::query!("select stream_created, seq, subject, version, event_id from command.relay_mark where shard = $1", shard)
                .fetch_optional(connection)
                .await
        })
        .await?;
    let Some(row) = row else { return Ok(Kept::Unmarked) };
    if row.stream_created == DateTime::UNIX_EPOCH {
        return Ok(Kept::Lost("a loss was seen before, and not all of it is repaired".to_owned()));
    }
    if row.stream_created != broker.stream_created() {
        return Ok(Kept::Lost(format!("the stream was made anew at {}", broker.stream_created())));
    }
    if row.seq == NOTHING {
        return Ok(Kept::Unmarked);
    }
    let stored = Stored { version: row.version.cast_unsigned(), event_id: row.event_id, sequence: row.seq.cast_unsigned() };
    let at_mark = broker.at(stored.sequence).await?;
    let last = match at_mark {
        // The stream keeps a number of messages per subject: the marked one may have made room for later ones.
        None => broker.last(&row.subject).await?,
        Some(_) => Last::Nothing,
    };
    Ok(kept(Mark { subject: row.subject, stored }, at_mark.map(|(message, _)| message), last))
}

/// The highest sequence that the marks of these shards have. Of a doubtful mark too: it was there once.
pub async fn highest(session: &mut Session, shards: &[i16]) -> Result<u64, Broken> {
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
fn kept(mark: Mark, at_mark: Option<Last>, last: Last) -> Kept {
    let Stored { version, event_id, sequence } = mark.stored;
    match (at_mark, last) {
        (Some(Last::Event(there)), _) if there.event_id == event_id => Kept::All(mark),
        (Some(_), _) => Kept::Lost(format!("sequence {sequence} holds another message than event {event_id}")),
        (None, Last::Event(newer)) if newer.version >= version => Kept::All(mark),
        (None, _) => Kept::Lost(format!("event {event_id} at sequence {sequence} is gone, and nothing newer is there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_itself_or_a_newer_one_proves_that_nothing_was_lost() {
        let stored = |version, id| Stored { version, event_id: Uuid::from_u128(id), sequence: 70 };
        let mark = Mark { subject: "listings.events.a_newer_programs.1".to_owned(), stored: stored(4, 1) };
        let event = |version, id| Last::Event(stored(version, id));
        for (at_mark, last, whole) in [
            (Some(event(4, 1)), Last::Nothing, true),
            (Some(event(4, 2)), Last::Nothing, false),
            (Some(Last::Foreign { sequence: 70 }), Last::Nothing, false),
            (None, event(4, 2), true),
            (None, event(5, 2), true),
            (None, event(3, 2), false),
            (None, Last::Nothing, false),
            (None, Last::Foreign { sequence: 71 }, false),
        ] {
            assert_eq!(matches!(kept(mark.clone(), at_mark, last), Kept::All(_)), whole, "{at_mark:?} {last:?}");
        }
    }
}
