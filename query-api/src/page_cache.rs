//! Pages in this process, for a second: many readers of one listing ask the stores once or twice.
//!
//! A page that is asked for once is not kept: most are not asked for again while they could be, and holding thousands of them costs
//! more than Redis does.
//!
//! What is held has been seen by nobody's eyes in particular: visibility is applied after it. Each event of a listing
//! leaves a floor for a while ([`crate::invalidations`]): a page below it is neither served from here nor kept. While events
//! are not heard of, nothing is served from here at all (PROTOCOL Q2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use events::ListingId;
use prometheus_client::metrics::counter::Counter;
use quick_cache::sync::Cache;

use crate::asked::Asked;
use crate::dependency::Unanswered;
use crate::page::Page;
use crate::recent::Recent;

/// How old a page may be if no event has told otherwise.
const PAGE_LIVES: Duration = Duration::from_secs(1);
/// All pages together, and one of them, in bytes.
const PAGES_WEIGH: u64 = 64 * 1024 * 1024;
const PAGE_WEIGHS: u64 = 4 * 1024;
/// A flood of events pushes out the oldest floors; the pages they guarded still live for a second only.
const FLOORS: usize = 200_000;

/// Odd while events are heard of. Each change of it leaves the pages of before behind, and the loads that began before.
type Epoch = u32;

/// What became of a look into the process's own pages.
#[derive(Debug, Clone)]
pub struct Lookups {
    pub hits: Counter,
    pub misses: Counter,
}

#[derive(Debug)]
pub struct PageCache {
    asked: Asked,
    pages: Recent<(Epoch, ListingId), Arc<Page>, Arc<Unanswered>>,
    floors: Cache<ListingId, u64>,
    epoch: AtomicU32,
    enabled: bool,
    lookups: Lookups,
}

impl PageCache {
    #[must_use]
    pub fn new(enabled: bool, lookups: Lookups) -> Self {
        Self {
            asked: Asked::default(),
            pages: Recent::new(PAGES_WEIGH, PAGE_WEIGHS, PAGE_LIVES),
            floors: Cache::new(FLOORS),
            epoch: AtomicU32::new(0),
            enabled,
            lookups,
        }
    }

    /// The page, if it is held and at least of version `wanted`.
    pub fn get(&self, id: ListingId, wanted: u64) -> Option<Arc<Page>> {
        let held = self.pages.get(&(self.listening()?, id)).filter(|page| page.version() >= wanted);
        match held {
            Some(_) => self.lookups.hits.inc(),
            None => self.lookups.misses.inc(),
        };
        held
    }

    /// Loads a page that [`PageCache::get`] did not have; from the second time on, once for all who want it at the same time.
    pub async fn load(
        &self,
        id: ListingId,
        load: impl Future<Output = Result<Page, Unanswered>>,
    ) -> Result<Arc<Page>, Arc<Unanswered>> {
        let load = async { load.await.map(Arc::new).map_err(Arc::new) };
        let Some(epoch) = self.listening().filter(|_| self.asked.again(id.0)) else {
            return load.await;
        };
        let key = (epoch, id);
        let (page, _) = self.pages.get_or_load(&key, load, |page| page.weight()).await;
        let page = page?;
        if page.version() < self.floor(id) {
            // Served, because the store has nothing newer; but the next reader asks again.
            self.pages.forget(&key);
        }
        Ok(page)
    }

    /// An event of this listing made this version.
    pub fn raise_floor(&self, id: ListingId, version: u64) {
        if self.floor(id) < version {
            self.floors.insert(id, version);
        }
        // After the floor: a load that ends in between sees it.
        if let Some(epoch) = self.listening() {
            let key = (epoch, id);
            if self.pages.get(&key).is_none_or(|page| page.version() < version) {
                self.pages.forget(&key);
            }
        }
    }

    /// Whether pages are served from here: events are heard of, and nobody has switched it off.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.listening().is_some()
    }

    /// Events are heard of from now on: what is loaded from now on may be kept.
    pub fn events_are_heard(&self) {
        self.set_listening(true);
    }

    /// Events may be missed from now on.
    pub fn events_are_lost(&self) {
        self.set_listening(false);
    }

    fn set_listening(&self, listening: bool) {
        let _ = self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
            (is_listening(epoch) != listening).then(|| epoch.wrapping_add(1))
        });
    }

    fn listening(&self) -> Option<Epoch> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (self.enabled && is_listening(epoch)).then_some(epoch)
    }

    fn floor(&self, id: ListingId) -> u64 {
        self.floors.get(&id).unwrap_or(0)
    }
}

fn is_listening(epoch: Epoch) -> bool {
    epoch % 2 == 1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn cache() -> PageCache {
        let cache = PageCache::new(true, Lookups { hits: Counter::default(), misses: Counter::default() });
        cache.events_are_heard();
        cache
    }

    /// As somebody does who is not the first to ask.
    async fn load(cache: &PageCache, id: ListingId, version: u64) -> u64 {
        let _ = cache.asked.again(id.0);
        cache.load(id, async { Ok(Page::Gone { version }) }).await.unwrap().version()
    }

    #[tokio::test]
    async fn a_page_that_is_asked_for_once_is_not_kept() {
        let (cache, id) = (cache(), ListingId::new());
        cache.load(id, async { Ok(Page::Gone { version: 1 }) }).await.unwrap();
        assert!(cache.get(id, 0).is_none());
        cache.load(id, async { Ok(Page::Gone { version: 1 }) }).await.unwrap();
        assert!(cache.get(id, 0).is_some());
    }

    #[tokio::test]
    async fn a_page_is_loaded_once_for_all_who_ask_together() {
        let (cache, id, loads) = (cache(), ListingId::new(), AtomicUsize::new(0));
        let _ = cache.asked.again(id.0);
        let ask = || {
            cache.load(id, async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(Page::Gone { version: 1 })
            })
        };
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!((one.unwrap().version(), two.unwrap().version(), loads.into_inner()), (1, 1, 1));
        assert_eq!(cache.get(id, 0).unwrap().version(), 1);
    }

    #[tokio::test]
    async fn a_page_below_the_floor_is_not_served_from_here() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 1).await;
        cache.raise_floor(id, 2);
        assert!(cache.get(id, 0).is_none());

        assert_eq!(load(&cache, id, 1).await, 1, "the store is behind: served");
        assert!(cache.get(id, 0).is_none(), "but not kept");

        load(&cache, id, 2).await;
        cache.raise_floor(id, 1);
        assert_eq!(cache.get(id, 0).unwrap().version(), 2, "an old event lowers nothing");
    }

    #[tokio::test]
    async fn a_reader_who_has_seen_more_gets_no_older_page() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 3).await;
        assert!(cache.get(id, 4).is_none());
        assert!(cache.get(id, 3).is_some());
    }

    #[tokio::test]
    async fn losing_the_events_empties_it() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 1).await;
        cache.events_are_lost();
        assert!(cache.get(id, 0).is_none());
        load(&cache, id, 1).await;
        cache.events_are_heard();
        assert!(cache.get(id, 0).is_none(), "neither what was held before nor what was loaded meanwhile");
        load(&cache, id, 2).await;
        assert!(cache.get(id, 0).is_some());
    }

    #[tokio::test]
    async fn a_load_that_began_before_the_loss_is_not_kept_after_it() {
        let (cache, id) = (cache(), ListingId::new());
        let _ = cache.asked.again(id.0);
        let outcome = cache.load(id, async {
            cache.events_are_lost();
            cache.events_are_heard();
            Ok(Page::Gone { version: 1 })
        });
        assert_eq!(outcome.await.unwrap().version(), 1);
        assert!(cache.get(id, 0).is_none());
    }

    #[tokio::test]
    async fn a_failed_load_is_not_kept() {
        let (cache, id) = (cache(), ListingId::new());
        assert!(cache.load(id, async { Err(Unanswered::Away("redis")) }).await.is_err());
        assert_eq!(load(&cache, id, 1).await, 1);
    }
}
