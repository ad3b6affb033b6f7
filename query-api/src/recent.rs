//! What was loaded within the last moment, and what is being loaded: once for all who want it at the same time.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Keeps outcomes for a while after they came; failures are only shared by those who waited for them.
pub struct Recent<K, V, E> {
    loads: Cache<K, Held<V, E>, ByWeight>,
    lives: Duration,
}

struct Held<V, E> {
    load: Arc<Load<V, E>>,
    /// In bytes, or nearly so.
    weight: u64,
}

/// Under way until it has an outcome.
struct Load<V, E> {
    outcome: OnceCell<Outcome<V, E>>,
}

struct Outcome<V, E> {
    result: Result<V, E>,
    at: Instant,
}

/// What a load takes, besides what it brings: key, counters, pointers.
const UNDER_WAY: u64 = 512;

#[derive(Clone)]
struct ByWeight;

impl<K, V, E> Weighter<K, Held<V, E>> for ByWeight {
    fn weight(&self, _: &K, held: &Held<V, E>) -> u64 {
        held.weight
    }
}

impl<V, E> Clone for Held<V, E> {
    fn clone(&self) -> Self {
        Self { load: Arc::clone(&self.load), weight: self.weight }
    }
}

impl<V, E> Held<V, E> {
    fn is_over(&self, lives: Duration) -> bool {
        self.load.outcome.get().is_some_and(|outcome| outcome.result.is_err() || outcome.at.elapsed() >= lives)
    }
}

impl<K, V, E> fmt::Debug for Recent<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("lives", &self.lives).finish_non_exhaustive()
    }
}

impl<K, V, E> Recent<K, V, E>
where
    K: Eq + Hash + Clone,
    V: Clone,
    E: Clone,
{
    /// `weight` bounds all that is held; `each` is what one usually weighs.
    #[must_use]
    pub fn new(weight: u64, each: u64, lives: Duration) -> Self {
        let items = usize::try_from(weight / each.max(1)).unwrap_or(usize::MAX);
        Self { loads: Cache::with_weighter(items, weight, ByWeight), lives }
    }

    /// What is held of it.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let held = self.loads.get(key)?;
        let outcome = held.load.outcome.get()?;
        outcome.result.as_ref().ok().filter(|_| outcome.at.elapsed() < self.lives).cloned()
    }

    /// What is held, else what somebody is loading already, else what `load` brings; and whether it was this load that brought it.
    pub async fn get_or_load<Q>(
        &self,
        key: &Q,
        load: impl Future<Output = Result<V, E>>,
        weigh: impl FnOnce(&V) -> u64,
    ) -> (Result<V, E>, bool)
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
    {
        let joined = match self.loads.get(key) {
            Some(held) if !held.is_over(self.lives) => held.load,
            over => {
                if over.is_some() {
                    self.loads.remove_if(key, |held| held.is_over(self.lives));
                }
                self.begin(key)
            }
        };
        let mut ours = false;
        let outcome = joined.outcome.get_or_init(async || {
            ours = true;
            Outcome { result: load.await, at: Instant::now() }
        });
        let Outcome { result, .. } = outcome.await;
        match result {
            Ok(value) if ours => {
                let weight = UNDER_WAY + weigh(value);
                // What was forgotten meanwhile stays forgotten, also if somebody has loaded it anew.
                if self.loads.peek(key).is_some_and(|held| Arc::ptr_eq(&held.load, &joined)) {
                    let _ = self.loads.replace(key.to_owned(), Held { load: Arc::clone(&joined), weight }, true);
                }
            }
            Ok(_) => {}
            Err(_) => {
                self.loads.remove_if(key, |held| Arc::ptr_eq(&held.load, &joined));
            }
        }
        (result.clone(), ours)
    }

    /// The next who wants it loads it anew, whatever is held or under way.
    pub fn forget<Q>(&self, key: &Q)
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.loads.remove(key);
    }

    /// One load for all who come here at the same time.
    fn begin<Q>(&self, key: &Q) -> Arc<Load<V, E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
    {
        let new = || Held { load: Arc::new(Load { outcome: OnceCell::new() }), weight: UNDER_WAY };
        match self.loads.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(new())) {
            Ok(held) => held.load,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LIVES: Duration = Duration::from_secs(1);

    fn recent() -> Recent<String, u32, &'static str> {
        Recent::new(1_000_000, 1_000, LIVES)
    }

    async fn loads(recent: &Recent<String, u32, &'static str>, key: &str, value: Result<u32, &'static str>) -> (u32, bool) {
        let (result, ours) = recent.get_or_load(key, async { value }, |_| 1).await;
        (result.unwrap_or_default(), ours)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_held_from_its_outcome_on_for_as_long_as_it_lives() {
        let recent = recent();
        let slow = async {
            tokio::time::sleep(10 * LIVES).await;
            Ok(1)
        };
        assert_eq!(recent.get_or_load("a", slow, |_| 1).await, (Ok(1), true));
        tokio::time::advance(LIVES.mul_f32(0.9)).await;
        assert_eq!((recent.get("a"), loads(&recent, "a", Ok(2)).await), (Some(1), (1, false)));
        tokio::time::advance(LIVES.mul_f32(0.2)).await;
        assert_eq!((recent.get("a"), loads(&recent, "a", Ok(2)).await), (None, (2, true)));
        assert_eq!(recent.get("a"), Some(2));
    }

    #[tokio::test]
    async fn those_who_come_together_share_one_load_and_its_failure() {
        let (recent, begun) = (recent(), AtomicU32::new(0));
        let load = || async {
            begun.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err("no")
        };
        let (one, other) = tokio::join!(recent.get_or_load("a", load(), |_| 1), recent.get_or_load("a", load(), |_| 1));
        assert_eq!((one.0, other.0, begun.into_inner()), (Err("no"), Err("no"), 1));
        assert_eq!(loads(&recent, "a", Ok(3)).await, (3, true), "a failure is not kept");
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_load_to_the_next() {
        let recent = recent();
        let never = recent.get_or_load("a", std::future::pending(), |_| 1);
        assert!(tokio::time::timeout(Duration::ZERO, never).await.is_err());
        assert_eq!(loads(&recent, "a", Ok(4)).await, (4, true));
    }

    #[tokio::test]
    async fn what_was_forgotten_while_it_was_loaded_is_not_kept() {
        let recent = recent();
        let load = async {
            recent.forget("a");
            Ok(5)
        };
        assert_eq!(recent.get_or_load("a", load, |_| 1).await, (Ok(5), true));
        assert_eq!(recent.get("a"), None);
    }

    #[tokio::test]
    async fn a_late_load_does_not_replace_a_newer_one() {
        let recent = recent();
        let late = async {
            recent.forget("a");
            assert_eq!(loads(&recent, "a", Ok(7)).await, (7, true));
            Ok(6)
        };
        assert_eq!(recent.get_or_load("a", late, |_| 1).await, (Ok(6), true));
        assert_eq!(recent.get("a"), Some(7));
    }

    #[tokio::test]
    async fn it_holds_no_more_than_its_weight() {
        let recent: Recent<String, u32, &'static str> = Recent::new(100_000, 10_000, LIVES);
        for number in 0..1_000 {
            let (held, _) = recent.get_or_load(&number.to_string(), async { Ok(number) }, |_| 10_000).await;
            assert_eq!(held, Ok(number));
        }
        assert!(recent.loads.weight() <= 100_000, "{}", recent.loads.weight());
    }
}
