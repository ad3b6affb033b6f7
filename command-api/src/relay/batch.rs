//! Which events may share one atomic batch: a rule without I/O.

use std::collections::{HashMap, HashSet};

use super::event::{JournalEvent, StoredEvent, SubjectKey};

/// An event to publish.
#[derive(Debug)]
pub struct OutgoingEvent {
    pub event: JournalEvent,
    /// The expected last sequence of its subject, 0 if the subject is empty. The broker allows it on the first event of a subject
    /// in a batch only, so the later ones have none.
    pub expected: Option<u64>,
}

/// Claimed events, divided by what is known of their subjects.
#[derive(Debug, Default)]
pub struct BatchPlan {
    /// Each of these follows the last message of its subject, or an event before it in here.
    pub together: Vec<OutgoingEvent>,
    /// The stream holds these, or a later event of the same history.
    pub already_stored: Vec<(JournalEvent, StoredEvent)>,
    /// The last message of the subject must be read first. They are resolved one by one, after the batch.
    pub unresolved: Vec<JournalEvent>,
}

/// Divides events, which must be in order of version within an aggregate.
///
/// `last_messages` holds the last messages of subjects, each proven to be the journal's event. An event of a deferred aggregate
/// never shares a batch: if the broker refuses it again, it would refuse the others with it.
pub fn plan_batch(
    events: Vec<JournalEvent>,
    last_messages: &HashMap<SubjectKey, StoredEvent>,
    is_deferred: impl Fn(&SubjectKey) -> bool,
) -> BatchPlan {
    let mut plan = BatchPlan { together: Vec::with_capacity(events.len()), ..BatchPlan::default() };
    // The last version of each aggregate in the batch.
    let mut batched: HashMap<SubjectKey, u64> = HashMap::with_capacity(events.len());
    let mut unresolved: HashSet<SubjectKey> = HashSet::new();
    for event in events {
        let (key, version) = (event.key.clone(), event.version);
        let expected = match (batched.get(&key), last_messages.get(&key)) {
            _ if unresolved.contains(&key) || is_deferred(&key) => None,
            (Some(before), _) if before + 1 == version => Some(None),
            (None, Some(last)) if last.version >= version => {
                plan.already_stored.push((event, *last));
                continue;
            }
            (None, Some(last)) if last.version + 1 == version => Some(Some(last.sequence)),
            (None, None) if version == 1 => Some(Some(0)),
            (Some(_) | None, _) => None,
        };
        if let Some(expected) = expected {
            batched.insert(key, version);
            plan.together.push(OutgoingEvent { event, expected });
        } else {
            unresolved.insert(key);
            plan.unresolved.push(event);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn key(id: u128) -> SubjectKey {
        SubjectKey::new("a_kind_unknown_to_all", Uuid::from_u128(id)).unwrap()
    }

    fn event(id: u128, version: u64) -> JournalEvent {
        let key = key(id);
        JournalEvent { seq: 0, key, version, id: Uuid::nil(), headers: String::new(), body: Bytes::new() }
    }

    fn versions<'e>(events: impl IntoIterator<Item = &'e JournalEvent>) -> Vec<(u128, u64)> {
        events.into_iter().map(|event| (event.key.id().as_u128(), event.version)).collect()
    }

    #[test]
    fn only_what_follows_travels_together() {
        let tip = |version, sequence| StoredEvent { version, sequence, event_id: Uuid::nil() };
        let last = HashMap::from([(key(3), tip(4, 40)), (key(4), tip(4, 41)), (key(5), tip(9, 90))]);
        let events = vec![
            // New, and its next version.
            event(1, 1),
            event(1, 2),
            // Unknown, and not the first: its later version must not overtake it.
            event(2, 3),
            event(2, 4),
            // The next of a known one, and a gap after it.
            event(3, 5),
            event(3, 7),
            event(3, 8),
            // Its first event already has a gap before it.
            event(4, 6),
            // Stored long ago, and still the next.
            event(5, 8),
            event(5, 9),
            event(5, 10),
            // The next of one that was deferred.
            event(6, 1),
            event(6, 2),
        ];
        let plan = plan_batch(events, &last, |of| *of == key(6));
        let together: Vec<_> =
            plan.together.iter().map(|out| (out.event.key.id().as_u128(), out.event.version, out.expected)).collect();
        assert_eq!(together, [(1, 1, Some(0)), (1, 2, None), (3, 5, Some(40)), (5, 10, Some(90))]);
        assert_eq!(versions(plan.already_stored.iter().map(|(event, _)| event)), [(5, 8), (5, 9)]);
        assert_eq!(versions(&plan.unresolved), [(2, 3), (2, 4), (3, 7), (3, 8), (4, 6), (6, 1), (6, 2)]);
    }
}
