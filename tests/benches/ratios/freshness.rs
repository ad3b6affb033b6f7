//! Time from the commit of a listing until a search finds it. The index's refresh interval is the lower bound.

use std::time::{Duration, Instant};

use acceptance::{Marketplace, a_listing, until::within};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::load::quantile;
use crate::table::{Goal, Line};

const LISTINGS: usize = 300;
/// Concurrent clients: few enough not to load the machine.
const CLIENTS: usize = 4;
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

pub async fn measure() -> anyhow::Result<[Line; 2]> {
    let market = Marketplace::start().await?;
    let seller = market.seller("bench")?;
    let one = |n: usize| {
        let (seller, market) = (seller.clone(), &market);
        async move {
            let word = format!("freshness{n}");
            let published = seller.publishes(a_listing().titled(&word)).await?;
            let committed = Instant::now();
            let search = format!("/api/v1/listings/search?q={word}");
            within(Duration::from_secs(30), "the search to find it", async || {
                let found = market.visitor()?.asks(&search).await?.expect(200)?.value()?;
                // The search also finds similar words, with a lower rank.
                Ok((found["items"][0]["id"] == published.id.to_string()).then_some(()))
            })
            .await?;
            anyhow::Ok(committed.elapsed())
        }
    };
    let mut took: Vec<Duration> =
        futures_util::stream::iter(0..LISTINGS).map(one).buffer_unordered(CLIENTS).try_collect().await?;
    market.discard().await?;
    took.sort_unstable();
    let line = |what, share| {
        let (total, above) = (quantile(&took, share), quantile(&took, share).saturating_sub(REFRESH_INTERVAL));
        Line {
            what,
            ours: format!("{} ms", total.as_millis()),
            baseline: format!("refresh interval {} ms", REFRESH_INTERVAL.as_millis()),
            result: above.as_secs_f64() * 1e3,
            range: None,
            goal: Goal::ReportedMs,
        }
    };
    Ok([
        line("commit → searchable, p50 above the refresh interval", 0.5),
        line("commit → searchable, p99 above the refresh interval", 0.99),
    ])
}
