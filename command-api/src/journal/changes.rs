//! The changes that a command decided on, of aggregates of any kind, and how each kind writes its own state table.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use events::subject::EVENT_MAX;
use events::{Aggregate, AggregateKey, AggregateKind, ConsistencyToken, EventId, Meta, NewEvent, Recorded};
use sqlx::{Postgres, QueryBuilder};

use crate::actor::Actor;
use crate::command::{CommandError, CommandOutcome, Effect};
use crate::database::DatabaseError;

/// An aggregate whose state is in a table of schema `command`. It contributes its part to the one statement of
/// [`write`](super::write()); the journal itself knows no column of it.
pub trait StateTable: Aggregate {
    /// What breaking a unique constraint of the table means, for constraints that a client can break.
    const TAKEN: &'static [(&'static str, &'static str)] = &[];

    /// The version, to count the end of the aggregate.
    fn version_mut(&mut self) -> &mut u64;

    /// Appends an `insert … on conflict … do update` of these rows, with values bound as arrays by column. The text must not
    /// depend on the rows: Postgres prepares each text once per session.
    ///
    /// `rows` is ordered by id. An implementation changes the order if its table has another unique key: transactions that
    /// insert the same keys in the same order cannot deadlock.
    fn push_upsert(rows: Vec<StateRow<'_, Self>>, now: DateTime<Utc>, statement: &mut QueryBuilder<Postgres>);
}

/// The row that a command leaves of one aggregate.
#[derive(Debug, Clone, Copy)]
pub struct StateRow<'a, A> {
    pub state: &'a A,
    /// The command ended the aggregate: `state` is its last one, under the version of the end. The row stays as a tombstone.
    pub ended: bool,
}

/// Changes in the order in which they happen. Each has the aggregate's whole state and version after it.
#[derive(Default)]
pub struct Changes {
    /// One group per kind.
    groups: Vec<Box<dyn ChangeGroup>>,
    /// The order over all groups: the group of each change. Within a group changes are in order already.
    order: Vec<usize>,
}

impl Changes {
    /// Adds a change and the state after it.
    pub fn push<A: StateTable>(&mut self, change: A::Change, state: A) {
        self.push_decided(Decided { change, state, ends: false });
    }

    /// Adds the change that ends an aggregate. `last_state` is the state before it; the end takes one more version.
    pub fn end<A: StateTable>(&mut self, change: A::Change, mut last_state: A) {
        *last_state.version_mut() += 1;
        self.push_decided(Decided { change, state: last_state, ends: true });
    }

    fn push_decided<A: StateTable>(&mut self, decided: Decided<A>) {
        let index = self.groups.iter().position(|group| group.kind() == A::KIND).unwrap_or_else(|| {
            self.groups.push(Box::new(Group::<A>(Vec::new())));
            self.groups.len() - 1
        });
        let group: &mut dyn Any = &mut *self.groups[index];
        if let Some(Group(changes)) = group.downcast_mut::<Group<A>>() {
            changes.push(decided);
            self.order.push(index);
        }
    }

    /// Adds an empty group, for a statement without rows.
    #[cfg(test)]
    pub fn touch<A: StateTable>(&mut self) {
        self.groups.push(Box::new(Group::<A>(Vec::new())));
    }

    /// Adds the changes that were decided later in the same transaction.
    pub fn append(&mut self, later: Self) {
        let indices: Vec<usize> = later.groups.into_iter().map(|group| self.append_group(group)).collect();
        self.order.extend(later.order.into_iter().map(|index| indices[index]));
    }

    fn append_group(&mut self, later: Box<dyn ChangeGroup>) -> usize {
        if let Some(index) = self.groups.iter().position(|group| group.kind() == later.kind()) {
            self.groups[index].append(later);
            return index;
        }
        self.groups.push(later);
        self.groups.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Names each changed aggregate at its last version.
    pub fn token(&self) -> ConsistencyToken {
        let mut last: BTreeMap<AggregateKey, u64> = BTreeMap::new();
        last.extend(self.in_order().map(|(group, index)| group.version(index)));
        ConsistencyToken::of(&last.into_iter().collect::<Vec<_>>())
    }

    /// The outcome of a command that left its aggregate in this state. Without changes the token names the state itself.
    pub fn outcome<A: Aggregate>(&self, state: A) -> CommandOutcome<A> {
        if self.is_empty() {
            let token = ConsistencyToken::of(&[(AggregateKey::of::<A>(state.id()), state.version())]);
            CommandOutcome::new(state, token, Effect::Unchanged)
        } else {
            CommandOutcome::new(state, self.token(), Effect::Written)
        }
    }

    /// Encodes the events. Refuses an event that is larger than the broker takes, before anything is written (PROTOCOL W5).
    pub(super) fn encode(&self, actor: &Actor, now: DateTime<Utc>) -> Result<Vec<Recorded>, CommandError> {
        let encode = |(group, index): (&dyn ChangeGroup, usize)| {
            let (key, version) = group.version(index);
            let meta = Meta {
                id: EventId::new(),
                key,
                version,
                time: now.into(),
                caused_by: Some(actor.who),
                correlation_id: actor.correlation_id.clone(),
                trace_parent: actor.trace_parent.clone(),
            };
            let recorded = group.encode(index, meta).map_err(DatabaseError::document)?;
            if recorded.size() > EVENT_MAX { Err(CommandError::TooLarge) } else { Ok(recorded) }
        };
        self.in_order().map(encode).collect()
    }

    /// The groups by the name of their kind, so that a statement over the same kinds always has the same text.
    pub(super) fn groups(&self) -> Vec<&dyn ChangeGroup> {
        let mut groups: Vec<&dyn ChangeGroup> = self.groups.iter().map(|group| &**group).collect();
        groups.sort_unstable_by_key(|group| group.kind());
        groups
    }

    fn in_order(&self) -> impl Iterator<Item = (&dyn ChangeGroup, usize)> {
        let mut next = vec![0; self.groups.len()];
        self.order.iter().map(move |&group| {
            let index = next[group];
            next[group] += 1;
            (&*self.groups[group], index)
        })
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.in_order().map(|(group, index)| group.show(index))).finish()
    }
}

/// The changes of one kind of aggregate, for code that handles all kinds.
pub(super) trait ChangeGroup: Any + Send + Sync {
    fn kind(&self) -> AggregateKind;

    /// Which aggregate a change is of, and its version after the change.
    fn version(&self, index: usize) -> (AggregateKey, u64);

    fn encode(&self, index: usize, meta: Meta) -> Result<Recorded, serde_json::Error>;

    /// Adds the changes of another group of the same kind.
    fn append(&mut self, later: Box<dyn ChangeGroup>);

    /// Appends the upsert of the last state of each aggregate.
    fn push_upsert(&self, now: DateTime<Utc>, statement: &mut QueryBuilder<Postgres>);

    /// See [`StateTable::TAKEN`].
    fn taken(&self) -> &'static [(&'static str, &'static str)];

    fn show(&self, index: usize) -> &dyn fmt::Debug;
}

#[derive(Debug)]
struct Decided<A: Aggregate> {
    change: A::Change,
    state: A,
    /// The change ends the aggregate, and `state` is the last one under the version of the end.
    ends: bool,
}

struct Group<A: Aggregate>(Vec<Decided<A>>);

impl<A: StateTable> ChangeGroup for Group<A> {
    fn kind(&self) -> AggregateKind {
        A::KIND
    }

    fn version(&self, index: usize) -> (AggregateKey, u64) {
        let state = &self.0[index].state;
        (AggregateKey::of::<A>(state.id()), state.version())
    }

    fn encode(&self, index: usize, meta: Meta) -> Result<Recorded, serde_json::Error> {
        let Decided { change, state, ends } = &self.0[index];
        NewEvent { meta, change, state: (!ends).then_some(state) }.encode()
    }

    fn append(&mut self, later: Box<dyn ChangeGroup>) {
        let later: Box<dyn Any> = later;
        if let Ok(mut later) = later.downcast::<Self>() {
            self.0.append(&mut later.0);
        }
    }

    fn push_upsert(&self, now: DateTime<Utc>, statement: &mut QueryBuilder<Postgres>) {
        let mut last = BTreeMap::new();
        last.extend(self.0.iter().map(|decided| (decided.state.id(), decided)));
        let rows = last.into_values().map(|decided: &Decided<A>| StateRow { state: &decided.state, ended: decided.ends });
        A::push_upsert(rows.collect(), now, statement);
    }

    fn taken(&self) -> &'static [(&'static str, &'static str)] {
        A::TAKEN
    }

    fn show(&self, index: usize) -> &dyn fmt::Debug {
        &self.0[index]
    }
}
