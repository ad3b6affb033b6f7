//! What the broker acknowledged last, per shard, kept in Postgres.
//!
//! A broker can lose what it acknowledged: a store restored from a backup, a stream deleted and made anew. It then gives the
//! same sequences again, so only the event at the marked sequence tells (PROTOCOL R5).

use chrono::{DateTime, Utc};
use events::AggregateKey;
use uuid::Uuid;

use super::Broken;
use super::broker::Broker;
use super::ownership::Session;
use super::resolve::{Last, Stored};

/// An event that the stream holds, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub key: AggregateKey,
    pub stored: Stored,
}

/// Deletes rows that the broker has acknowledged, and remembers the last of each shard: one statement, both or neither.
pub async fn settle(
    session: &mut Session,
    created: DateTime<Utc>,
    done: &[(i16, i64)],
    marks: &[(i16, Mark)],
) -> Result<(), Broken> {
    let (shards, seqs): (Vec<i16>, Vec<i64>) = done.iter().copied().unzip();
    let marked: Vec<i16> = marks.iter().map(|(shard, _)| *shard).collect();
    let sequences: Vec<i64> = marks.iter().map(|(_, mark)| mark.stored.sequence.cast_signed()).collect();
    let subjects: Vec<String> = marks.iter().map(|(_, mark)| mark.key.subject()).collect();
    let versions: Vec<i64> = marks.iter().map(|(_, mark)| mark.stored.version.cast_signed()).collect();
    let event_ids: Vec<Uuid> = marks.iter().map(|(_, mark)| mark.stored.event_id).collect();
    session
        .run(async |connection| {
            sqlx::query!(
                "with gone as (
                     delete from command.outbox where ctid = any (array (
                         select o.ctid from unnest($1::smallint[], $2::bigint[]) as done (shard, seq)
                          cross join lateral (select ctid from command.outbox where shard = done.shard and seq = done.seq offset 0) as o)))
                 insert into command.relay_mark (shard, stream_created, seq, subject, version, event_id)
                 select m.shard, $3, m.seq, m.subject, m.version, m.event_id
                   from unnest($4::smallint[], $5::bigint[], $6::text[], $7::bigint[], $8::uuid[]) as m (shard, seq, subject, version, event_id)
                 on conflict (shard) do update set stream_created = excluded.stream_created, seq = excluded.seq,
                    subject = excluded.subject, version = excluded.version, event_id = excluded.event_id",
                &shards,
                &seqs,
                created,
                &marked,
                &sequences,
                &subjects,
                &versions,
                &event_ids,
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
    if row.stream_created != broker.stream_created() {
        return Ok(Kept::Lost(format!("the stream was made anew at {}", broker.stream_created())));
    }
    let Some(key) = AggregateKey::from_subject(&row.subject) else {
        return Err(Broken::Waiting(format!(
            "the mark of shard {shard} has a subject that this program does not know: {}",
            row.subject
        )));
    };
    let stored = Stored { version: row.version.cast_unsigned(), event_id: row.event_id, sequence: row.seq.cast_unsigned() };
    let at_mark = broker.at(stored.sequence).await?;
    let last = match at_mark {
        // The stream keeps a number of messages per subject: the marked one may have made room for later ones.
        None => broker.last(&row.subject).await?,
        Some(_) => Last::Nothing,
    };
    Ok(kept(Mark { key, stored }, at_mark.map(|(message, _)| message), last))
}

/// The highest sequence that any shard's mark has in this stream.
pub async fn highest(session: &mut Session, created: DateTime<Utc>) -> Result<u64, Broken> {
    let highest = session
        .run(async |connection| {
            sqlx::query_scalar!(
                r#"select coalesce(max(seq), 0) as "seq!" from command.relay_mark where stream_created = $1"#,
                created
            )
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
        let mark = Mark { key: AggregateKey::stock(Uuid::from_u128(9)), stored: stored(4, 1) };
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
            assert_eq!(matches!(kept(mark, at_mark, last), Kept::All(_)), whole, "{at_mark:?} {last:?}");
        }
    }
}
