//! Which events may travel together: a rule without I/O.

use std::collections::{HashMap, HashSet};

use events::AggregateKey;

use super::claim::Event;
use super::resolve::Stored;

/// Claimed events, sorted by what is known of their subjects.
#[derive(Debug, Default)]
pub struct Sorted {
    /// Each follows what its subject holds, or the one before it in here. With the sequence to expect; none for the later
    /// events of a subject.
    pub together: Vec<(Event, Option<u64>)>,
    /// The stream holds these, or a later event of the same history.
    pub there: Vec<(Event, Stored)>,
    /// Nobody knows: look at the subject first, one by one and after the batch.
    pub alone: Vec<Event>,
}

/// Sorts events, which come by version within an aggregate. A tip is the last message of an aggregate's subject, proven to be
/// the journal's. Those that were set aside never travel together: one that is refused again would take the others with it.
pub fn sort(events: Vec<Event>, tips: &HashMap<AggregateKey, Stored>, was_aside: impl Fn(&AggregateKey) -> bool) -> Sorted {
    let mut sorted = Sorted { together: Vec::with_capacity(events.len()), ..Sorted::default() };
    let mut within: HashMap<AggregateKey, u64> = HashMap::with_capacity(events.len());
    let mut alone: HashSet<AggregateKey> = HashSet::new();
    for event in events {
        let (key, version) = (event.key, event.version);
        let before = within.get(&key).copied();
        match (before, tips.get(&key)) {
            _ if alone.contains(&key) || was_aside(&key) => sorted.alone.push(event),
            (Some(before), _) if before + 1 == version => {
                within.insert(key, version);
                sorted.together.push((event, None));
            }
            (None, Some(tip)) if tip.version >= version => sorted.there.push((event, *tip)),
            (None, Some(tip)) if tip.version + 1 == version => {
                within.insert(key, version);
                sorted.together.push((event, Some(tip.sequence)));
            }
            (None, None) if version == 1 => {
                within.insert(key, version);
                sorted.together.push((event, Some(0)));
            }
            (Some(_) | None, _) => {
                alone.insert(key);
                sorted.alone.push(event);
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn event(id: u128, version: u64) -> Event {
        let key = AggregateKey::listing(Uuid::from_u128(id));
        Event { seq: 0, key, version, id: Uuid::nil(), headers: String::new(), body: Bytes::new() }
    }

    fn versions<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<(u128, u64)> {
        events.into_iter().map(|event| (event.key.id.as_u128(), event.version)).collect()
    }

    #[test]
    fn only_what_follows_travels_together() {
        let tip = |version, sequence| Stored { version, sequence, event_id: Uuid::nil() };
        let key = |id| AggregateKey::listing(Uuid::from_u128(id));
        let tips = HashMap::from([(key(3), tip(4, 40)), (key(4), tip(4, 41)), (key(5), tip(9, 90))]);
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
            // A gap at once.
            event(4, 6),
            // Stored long ago, and still the next.
            event(5, 8),
            event(5, 9),
            event(5, 10),
            // The next of one that was set aside.
            event(6, 1),
            event(6, 2),
        ];
        let sorted = sort(events, &tips, |of| *of == key(6));
        let together: Vec<_> =
            sorted.together.iter().map(|(event, expected)| (event.key.id.as_u128(), event.version, *expected)).collect();
        assert_eq!(together, [(1, 1, Some(0)), (1, 2, None), (3, 5, Some(40)), (5, 10, Some(90))]);
        assert_eq!(versions(sorted.there.iter().map(|(event, _)| event)), [(5, 8), (5, 9)]);
        assert_eq!(versions(&sorted.alone), [(2, 3), (2, 4), (3, 7), (3, 8), (4, 6), (6, 1), (6, 2)]);
    }
}
