//! Which shards a lane may own, and which it does own: a rule without I/O.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Shards are taken a few at a time, so that the surviving processes share the shards of a dead one.
const TAKE_AT_ONCE: usize = 2;
const TAKE_EVERY: Duration = Duration::from_millis(100);

/// The shards of a lane.
pub struct ShardOwnership {
    /// The shards that the lane may own.
    assigned: Vec<i16>,
    /// The shards whose locks the lane's session holds, and of which the stream lacks nothing.
    owned: BTreeSet<i16>,
    /// Where the next candidates begin among the shards that are not owned, so that each gets its turn.
    rotation: usize,
    next_attempt: Instant,
}

impl ShardOwnership {
    pub fn of(assigned: Vec<i16>) -> Self {
        Self { assigned, owned: BTreeSet::new(), rotation: 0, next_attempt: Instant::now() }
    }

    pub fn owned(&self) -> &BTreeSet<i16> {
        &self.owned
    }

    pub fn add(&mut self, shard: i16) {
        self.owned.insert(shard);
    }

    /// Returns whether there is a shard to take, and the last attempt is long enough ago.
    pub fn attempt_is_due(&self) -> bool {
        self.owned.len() < self.assigned.len() && Instant::now() >= self.next_attempt
    }

    pub fn attempted(&mut self) {
        self.next_attempt = Instant::now() + TAKE_EVERY;
    }

    /// Returns the shards to try now, and the others that are not owned.
    pub fn candidates(&mut self) -> (Vec<i16>, Vec<i16>) {
        let mut missing: Vec<i16> = self.assigned.iter().copied().filter(|shard| !self.owned.contains(shard)).collect();
        self.rotation += TAKE_AT_ONCE;
        let turn = self.rotation.checked_rem(missing.len()).unwrap_or_default();
        missing.rotate_left(turn);
        let rest = missing.split_off(TAKE_AT_ONCE.min(missing.len()));
        (missing, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_its_turn_and_an_owned_one_is_not_tried() {
        let mut ownership = ShardOwnership::of(vec![0, 2, 4, 6, 8]);
        ownership.add(4);
        let mut tried = BTreeSet::new();
        for _ in 0..4 {
            let (now, rest) = ownership.candidates();
            assert_eq!((now.len(), rest.len()), (2, 2));
            tried.extend(now);
        }
        assert_eq!(tried, BTreeSet::from([0, 2, 6, 8]));
        for shard in [0, 2, 6, 8] {
            ownership.add(shard);
        }
        assert!(!ownership.attempt_is_due());
        assert_eq!(ownership.candidates(), (vec![], vec![]));
    }
}
