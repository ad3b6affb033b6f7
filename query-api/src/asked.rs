//! What was asked for within the last moment, as far as a little room remembers.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use uuid::Uuid;

/// Half a megabyte: about as many different listings as one process shows within a second, and more than any that are popular.
const PLACES: usize = 1 << 16;

/// Ids that share a place push each other out, so that one is sometimes forgotten, and never mistaken for another but once in
/// four billion.
#[derive(Debug)]
pub struct Asked {
    places: Box<[AtomicU64]>,
    since: Instant,
}

impl Default for Asked {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), since: Instant::now() }
    }
}

impl Asked {
    /// Notes that it is asked for. Whether it was before: in this second, or the last.
    #[must_use]
    pub fn again(&self, id: Uuid) -> bool {
        // The half of a version 7 uuid that is random.
        let (_, random) = id.as_u64_pair();
        let now = self.since.elapsed().as_secs() + 1;
        let fingerprint = random >> 32;
        let place = &self.places[usize::try_from(random).unwrap_or_default() % PLACES];
        let before = place.swap(now << 32 | fingerprint, Ordering::Relaxed);
        before & u64::from(u32::MAX) == fingerprint && (before >> 32) + 1 >= now && before != 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_remembered_for_a_second_or_two() {
        let (asked, one, other) = (Asked::default(), Uuid::from_u128(1 << 40), Uuid::from_u128(2 << 40));
        assert!(!asked.again(one));
        assert!(asked.again(one));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(asked.again(one));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!asked.again(one));
        assert!(!asked.again(other), "it takes the place of the one");
        assert!(!asked.again(one));
        assert!(!asked.again(Uuid::nil()));
    }
}
