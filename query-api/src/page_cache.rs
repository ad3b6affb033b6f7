//! Caches listings' pages in this process for a second, so that many readers of one listing cause one or two reads of a store.
//!
//! Only a page that is requested twice within a second or two is cached: caching every page costs more than Redis does
//! (decision 0707).
//!
//! A cached page is not filtered for a viewer; callers apply visibility to it. Each event of a listing raises its floor, the lowest
//! version that is served from here ([`crate::invalidations`]). While events may be missed, nothing is served from here
//! (PROTOCOL Q2).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::ListingId;
use moka::policy::EvictionPolicy;
use moka::{future, sync};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use views::listing_page::{ListingContent, StoredPage};

use crate::store_guard::StoreError;

/// A listing's page, before visibility is decided.
pub type CachedListing = StoredPage<ListingContent>;

/// Bounds the age of a cached page should an event be late.
const PAGE_TTL: Duration = Duration::from_secs(1);
/// Bytes of all cached pages.
const CAPACITY: u64 = 64 * 1024 * 1024;
/// Bytes of an entry besides the page's body: key, counters, pointers.
const ENTRY_OVERHEAD: usize = 512;
/// How long a floor is kept. Pages from before its event have expired long before.
const FLOOR_TTL: Duration = Duration::from_mins(1);
/// Most floors. A flood of events evicts some early; the pages that they guard live for another second.
const FLOORS: u64 = 200_000;
/// A listing that is requested again within this time or twice as much is cached.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);
/// Most listings remembered as requested, in about 2 MiB: more than one process serves per second.
const REQUESTED: usize = 1 << 16;

/// Counts subscriptions and their losses: odd while this process is subscribed to events.
type Epoch = u32;

/// Counts hits and misses of one cache.
#[derive(Debug, Clone)]
pub struct CacheLookups {
    pub hits: Counter,
    pub misses: Counter,
}

/// A page is found only under the epoch and the floor that it was loaded for. So a load that was under way when an event
/// arrived, or when the subscription was lost, is never served to later readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PageKey {
    id: ListingId,
    epoch: Epoch,
    floor: u64,
}

pub struct PageCache {
    pages: future::Cache<PageKey, Arc<CachedListing>>,
    floors: sync::Cache<ListingId, u64>,
    requested: RecentRequests,
    epoch: AtomicU32,
    enabled: bool,
    lookups: CacheLookups,
}

impl PageCache {
    pub fn new(enabled: bool, lookups: CacheLookups) -> Self {
        Self {
            pages: future::Cache::builder()
                .max_capacity(CAPACITY)
                .weigher(|_, page: &Arc<CachedListing>| {
                    let body = page.content.as_ref().map_or(0, |listing| listing.body.len());
                    u32::try_from(ENTRY_OVERHEAD + body).unwrap_or(u32::MAX)
                })
                .time_to_live(PAGE_TTL)
                .build(),
            // Not moka's default policy, which may reject the newest floor instead of evicting an old one.
            floors: sync::Cache::builder()
                .max_capacity(FLOORS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(FLOOR_TTL)
                .build(),
            requested: RecentRequests::default(),
            epoch: AtomicU32::new(0),
            enabled,
            lookups,
        }
    }

    /// The page, if it is cached with the `required` version or a newer one.
    pub async fn get(&self, id: ListingId, required: u64) -> Option<Arc<CachedListing>> {
        let page = self.pages.get(&self.key(id)?).await.filter(|page| page.version >= required);
        match page {
            Some(_) => self.lookups.hits.inc(),
            None => self.lookups.misses.inc(),
        };
        page
    }

    /// Loads a page that [`PageCache::get`] did not find. From the second request on, concurrent readers share one load and its
    /// outcome; an error is not cached.
    pub async fn load(
        &self,
        id: ListingId,
        load: impl Future<Output = Result<CachedListing, StoreError>>,
    ) -> Result<Arc<CachedListing>, Arc<StoreError>> {
        let load = async { load.await.map(Arc::new) };
        let Some(epoch) = self.used_epoch().filter(|_| self.requested.is_repeated(id)) else {
            return load.await.map_err(Arc::new);
        };
        let key = PageKey { id, epoch, floor: self.floor(id) };
        let page = self.pages.entry_by_ref(&key).or_try_insert_with(load).await?.into_value();
        if page.version < key.floor {
            // The stores lag behind the event. This page is the newest there is, but the next reader has to look again.
            self.pages.invalidate(&key).await;
        }
        Ok(page)
    }

    /// Records that an event made `version` of a listing: older pages are no longer served from here.
    pub fn raise_floor(&self, id: ListingId, version: u64) {
        if self.floor(id) < version {
            self.floors.insert(id, version);
        }
    }

    /// Whether pages are served from here: the cache is switched on, and no event can be missed.
    pub fn is_used(&self) -> bool {
        self.used_epoch().is_some()
    }

    /// Events are received from now on: pages loaded from now on may be cached.
    pub fn subscribed(&self) {
        self.set_subscribed(true);
    }

    /// Events may be missed from now on: nothing that is cached is served again.
    pub fn unsubscribed(&self) {
        self.set_subscribed(false);
    }

    fn set_subscribed(&self, subscribed: bool) {
        let _ = self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
            (is_subscribed(epoch) != subscribed).then(|| epoch.wrapping_add(1))
        });
    }

    fn used_epoch(&self) -> Option<Epoch> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (self.enabled && is_subscribed(epoch)).then_some(epoch)
    }

    fn key(&self, id: ListingId) -> Option<PageKey> {
        Some(PageKey { id, epoch: self.used_epoch()?, floor: self.floor(id) })
    }

    fn floor(&self, id: ListingId) -> u64 {
        self.floors.get(&id).unwrap_or(0)
    }
}

fn is_subscribed(epoch: Epoch) -> bool {
    epoch % 2 == 1
}

/// Which listings were requested within the last one to two times [`REPEATED_WITHIN`].
struct RecentRequests(Mutex<RequestWindows>);

struct RequestWindows {
    began: Instant,
    current: HashSet<ListingId>,
    previous: HashSet<ListingId>,
}

impl Default for RecentRequests {
    fn default() -> Self {
        Self(Mutex::new(RequestWindows { began: Instant::now(), current: HashSet::new(), previous: HashSet::new() }))
    }
}

impl RecentRequests {
    /// Records a request, and says whether there was another one recently.
    fn is_repeated(&self, id: ListingId) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let windows = &mut *windows;
        let age = windows.began.elapsed();
        if age >= REPEATED_WITHIN || windows.current.len() >= REQUESTED {
            std::mem::swap(&mut windows.current, &mut windows.previous);
            windows.current.clear();
            if age >= 2 * REPEATED_WITHIN {
                windows.previous.clear();
            }
            windows.began = Instant::now();
        }
        !windows.current.insert(id) || windows.previous.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn cache() -> PageCache {
        let cache = PageCache::new(true, CacheLookups { hits: Counter::default(), misses: Counter::default() });
        cache.subscribed();
        cache
    }

    fn page(version: u64) -> CachedListing {
        CachedListing { version, content: None }
    }

    /// Loads a page that has been requested before.
    async fn load(cache: &PageCache, id: ListingId, version: u64) -> u64 {
        let _ = cache.requested.is_repeated(id);
        cache.load(id, async { Ok(page(version)) }).await.unwrap().version
    }

    #[tokio::test]
    async fn a_page_that_is_asked_for_once_is_not_kept() {
        let (cache, id) = (cache(), ListingId::new());
        cache.load(id, async { Ok(page(1)) }).await.unwrap();
        assert!(cache.get(id, 0).await.is_none());
        cache.load(id, async { Ok(page(1)) }).await.unwrap();
        assert!(cache.get(id, 0).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_remembered_for_a_second_or_two() {
        let (requests, one, other) = (RecentRequests::default(), ListingId::new(), ListingId::new());
        assert!(!requests.is_repeated(one));
        assert!(requests.is_repeated(one));
        tokio::time::advance(REPEATED_WITHIN).await;
        assert!(requests.is_repeated(one));
        assert!(!requests.is_repeated(other));
        tokio::time::advance(2 * REPEATED_WITHIN).await;
        assert!(!requests.is_repeated(one));
        for _ in 0..3 * REQUESTED {
            let _ = requests.is_repeated(ListingId::new());
        }
        let windows = requests.0.lock().unwrap();
        assert!(windows.current.len() + windows.previous.len() <= 2 * REQUESTED);
    }

    #[tokio::test]
    async fn a_page_is_loaded_once_for_all_who_ask_together() {
        let (cache, id, loads) = (cache(), ListingId::new(), AtomicUsize::new(0));
        let _ = cache.requested.is_repeated(id);
        let ask = || {
            cache.load(id, async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(page(1))
            })
        };
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!((one.unwrap().version, two.unwrap().version, loads.into_inner()), (1, 1, 1));
        assert_eq!(cache.get(id, 0).await.unwrap().version, 1);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_load_to_the_next() {
        let (cache, id) = (cache(), ListingId::new());
        let _ = cache.requested.is_repeated(id);
        assert!(tokio::time::timeout(Duration::ZERO, cache.load(id, std::future::pending())).await.is_err());
        assert_eq!(load(&cache, id, 4).await, 4);
    }

    #[tokio::test]
    async fn a_page_below_the_floor_is_not_served_from_here() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 1).await;
        cache.raise_floor(id, 2);
        assert!(cache.get(id, 0).await.is_none());

        assert_eq!(load(&cache, id, 1).await, 1, "the store is behind: served");
        assert!(cache.get(id, 0).await.is_none(), "but not kept");

        load(&cache, id, 2).await;
        cache.raise_floor(id, 1);
        assert_eq!(cache.get(id, 0).await.unwrap().version, 2, "an old event lowers nothing");
    }

    #[tokio::test]
    async fn a_load_that_began_before_an_event_is_not_served_after_it() {
        let (cache, id) = (cache(), ListingId::new());
        let _ = cache.requested.is_repeated(id);
        let early = cache.load(id, async {
            cache.raise_floor(id, 2);
            assert_eq!(load(&cache, id, 2).await, 2, "whoever comes after the event does not join the load from before");
            Ok(page(1))
        });
        assert_eq!(early.await.unwrap().version, 1);
        assert_eq!(cache.get(id, 0).await.unwrap().version, 2);
    }

    #[tokio::test]
    async fn a_reader_who_has_seen_more_gets_no_older_page() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 3).await;
        assert!(cache.get(id, 4).await.is_none());
        assert!(cache.get(id, 3).await.is_some());
    }

    #[tokio::test]
    async fn losing_the_events_empties_it() {
        let (cache, id) = (cache(), ListingId::new());
        load(&cache, id, 1).await;
        cache.unsubscribed();
        assert!(cache.get(id, 0).await.is_none());
        load(&cache, id, 1).await;
        cache.subscribed();
        assert!(cache.get(id, 0).await.is_none(), "neither what was held before nor what was loaded meanwhile");
        load(&cache, id, 2).await;
        assert!(cache.get(id, 0).await.is_some());
    }

    #[tokio::test]
    async fn a_load_that_began_before_the_loss_is_not_kept_after_it() {
        let (cache, id) = (cache(), ListingId::new());
        let _ = cache.requested.is_repeated(id);
        let outcome = cache.load(id, async {
            cache.unsubscribed();
            cache.subscribed();
            Ok(page(1))
        });
        assert_eq!(outcome.await.unwrap().version, 1);
        assert!(cache.get(id, 0).await.is_none());
    }

    #[tokio::test]
    async fn those_who_come_together_share_a_failure_which_is_not_kept() {
        let (cache, id, loads) = (cache(), ListingId::new(), AtomicUsize::new(0));
        let _ = cache.requested.is_repeated(id);
        let ask = || {
            cache.load(id, async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(StoreError::Unavailable("redis"))
            })
        };
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!((one.is_err(), two.is_err(), loads.into_inner()), (true, true, 1));
        assert_eq!(load(&cache, id, 1).await, 1);
    }

    #[tokio::test]
    async fn it_holds_no_more_than_its_capacity() {
        let cache = cache();
        let pages = CAPACITY / 1024 / 1024 * 2;
        for _ in 0..pages {
            let large = large_page();
            let id = ListingId::new();
            let _ = cache.requested.is_repeated(id);
            cache.load(id, async { Ok(large) }).await.unwrap();
        }
        cache.pages.run_pending_tasks().await;
        assert!(cache.pages.weighted_size() <= CAPACITY, "{}", cache.pages.weighted_size());
    }

    /// A page of a MiB.
    fn large_page() -> CachedListing {
        use events::UserId;
        use events::listing::{Status, Visibility};
        use views::listing_page::ListingContent;

        let content = ListingContent {
            status: Status::Active,
            visibility: Visibility::Public,
            seller_id: UserId::new(),
            body: vec![b' '; 1024 * 1024].into(),
        };
        CachedListing { version: 1, content: Some(content) }
    }
}
