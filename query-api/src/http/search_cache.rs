//! Caches responses to searches for a moment, so that many clients with the same question cause one search.
//!
//! A request with a consistency token bypasses it: its search must start after the writes (PROTOCOL Q1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;
use service::problem::Problem;

use crate::consistency::Freshness;
use crate::page_cache::CacheLookups;

/// How long a response is cached: so much later than in the index a new listing may be found. However many clients there are, the
/// index gets the same search at most five times a second.
const RESPONSE_TTL: Duration = Duration::from_millis(200);
/// Bytes of all cached responses and their queries.
const CAPACITY: u64 = 64 * 1024 * 1024;
/// Bytes of an entry besides query and body: counters, pointers.
const ENTRY_OVERHEAD: usize = 512;
/// A longer query is not cached: while its search runs, it would take memory that nothing limits.
const QUERY_LENGTH: usize = 2 * 1024;

/// A rendered response.
#[derive(Debug)]
pub struct SearchResponse {
    pub body: Bytes,
    pub next_cursor: Option<String>,
    pub freshness: Freshness,
}

/// Responses by the text of the query.
pub struct SearchCache {
    responses: Cache<String, Arc<SearchResponse>>,
    lookups: CacheLookups,
}

impl SearchCache {
    pub fn new(lookups: CacheLookups) -> Self {
        let responses = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|query: &String, response: &Arc<SearchResponse>| {
                u32::try_from(ENTRY_OVERHEAD + query.len() + response.body.len()).unwrap_or(u32::MAX)
            })
            .time_to_live(RESPONSE_TTL)
            .build();
        Self { responses, lookups }
    }

    /// Returns the cached response, or the result of a running identical search, or of a new one. A problem is shared by those
    /// who wait for it and not cached.
    pub async fn get(
        &self,
        query: &str,
        search: impl Future<Output = Result<Arc<SearchResponse>, Problem>>,
    ) -> Result<Arc<SearchResponse>, Problem> {
        if query.len() > QUERY_LENGTH {
            return search.await;
        }
        let entry = self.responses.entry_by_ref(query).or_try_insert_with(search).await;
        let entry = entry.map_err(Arc::unwrap_or_clone)?;
        if entry.is_fresh() {
            self.lookups.misses.inc()
        } else {
            self.lookups.hits.inc()
        };
        Ok(entry.into_value())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn cache() -> SearchCache {
        SearchCache::new(CacheLookups { hits: Counter::default(), misses: Counter::default() })
    }

    fn response() -> Arc<SearchResponse> {
        Arc::new(SearchResponse { body: Bytes::from_static(b"{}"), next_cursor: None, freshness: Freshness::Fresh })
    }

    #[tokio::test]
    async fn the_same_question_is_looked_for_once() {
        let (cache, searches) = (cache(), AtomicU32::new(0));
        let search = || async {
            searches.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(response())
        };
        let (one, other) = tokio::join!(cache.get("q=a", search()), cache.get("q=a", search()));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(searches.load(Ordering::Relaxed), 1);
        cache.get("q=b", search()).await.unwrap();
        assert_eq!(searches.load(Ordering::Relaxed), 2);
        assert_eq!((cache.lookups.hits.get(), cache.lookups.misses.get()), (1, 2));
    }

    #[tokio::test]
    async fn a_question_of_which_few_would_fill_the_memory_is_not_shared() {
        let cache = cache();
        let long = "q".repeat(QUERY_LENGTH + 1);
        cache.get(&long, async { Ok(response()) }).await.unwrap();
        assert!(cache.get(&long, async { Err(Problem::malformed("searched again")) }).await.is_err());
    }

    #[tokio::test]
    async fn a_refusal_is_not_kept() {
        let cache = cache();
        let refused = cache.get("q=a", async { Err(Problem::malformed("no")) }).await;
        assert_eq!(refused.unwrap_err(), Problem::malformed("no"));
        assert!(cache.get("q=a", async { Ok(response()) }).await.is_ok());
    }
}
