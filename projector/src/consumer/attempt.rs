//! One try of a batch: decode, render, store. A panic is an outcome like any other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use events::envelope::header;
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::{Span, info_span};

use crate::delivery::{Chain, Delivery};
use crate::projection::{Failure, Outcome, Projection, Systemic};

/// Longer than the bound of any single request to a store; shorter than `ack_wait`, and than a stop may take. A store that hangs
/// for longer is away.
const STORED_WITHIN: Duration = Duration::from_secs(18);

/// What came of a batch.
#[derive(Debug)]
pub struct Attempt {
    pub chains: Vec<Chain>,
    /// One outcome for each chain's newest event, in the same order.
    pub result: Result<Vec<Outcome>, Systemic>,
    pub took: Duration,
}

/// Applies the newest event of each chain.
pub async fn attempt<P: Projection>(projection: Arc<P>, chains: Vec<Chain>) -> Attempt {
    let started = Instant::now();
    let spans: Vec<Span> = chains.iter().map(|chain| span::<P>(chain.head())).collect();
    let rendered: Vec<Result<P::Write, Failure>> =
        chains.iter().zip(&spans).map(|(chain, span)| span.in_scope(|| render(&*projection, chain.head()))).collect();
    let result = store_all(&*projection, rendered).await;
    drop(spans);
    Attempt { chains, result, took: started.elapsed() }
}

/// The event's part in the trace of the request that caused it; it costs nothing if nobody records that trace.
fn span<P: Projection>(delivery: &Delivery) -> Span {
    let Some(traceparent) = delivery.header(header::TRACE_PARENT).filter(|traceparent| is_sampled(traceparent)) else {
        return Span::none();
    };
    let span =
        info_span!("apply_event", projection.name = P::NAME, event.id = delivery.event_id(), event.sequence = delivery.sequence);
    service::telemetry::set_parent(&span, Some(traceparent));
    span
}

/// The last bit of a W3C trace context's flags.
fn is_sampled(traceparent: &str) -> bool {
    traceparent.rsplit('-').next().and_then(|flags| u8::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & 1 == 1)
}

fn render<P: Projection>(projection: &P, delivery: &Delivery) -> Result<P::Write, Failure> {
    catch_unwind(AssertUnwindSafe(|| projection.render(&delivery.decode()?)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))))
        .map_err(Failure::Poison)
}

/// Stores what could be rendered, and puts the outcomes back in order.
async fn store_all<P: Projection>(projection: &P, rendered: Vec<Result<P::Write, Failure>>) -> Result<Vec<Outcome>, Systemic> {
    let mut refused: Vec<Option<Failure>> = Vec::with_capacity(rendered.len());
    let mut writes = Vec::with_capacity(rendered.len());
    for one in rendered {
        match one {
            Ok(write) => {
                writes.push(write);
                refused.push(None);
            }
            Err(failure) => refused.push(Some(failure)),
        }
    }
    let mut stored = if writes.is_empty() { Vec::new() } else { store(projection, writes).await? }.into_iter();
    let missing = || Err(Failure::Transient(anyhow!("the store gave no outcome")));
    Ok(refused.into_iter().map(|refused| refused.map_or_else(|| stored.next().unwrap_or_else(missing), Err)).collect())
}

async fn store<P: Projection>(projection: &P, writes: Vec<P::Write>) -> Result<Vec<Outcome>, Systemic> {
    let alone = writes.len() == 1;
    match timeout(STORED_WITHIN, AssertUnwindSafe(projection.store(writes)).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Err(_) => Err(Systemic(anyhow!("the store has not answered for {} s", STORED_WITHIN.as_secs()))),
        Ok(Err(panic)) => {
            let error = anyhow!("panicked: {}", panic_text(&*panic));
            // Which of several it was shows when they are probed one by one.
            if alone { Ok(vec![Err(Failure::Poison(error))]) } else { Err(Systemic(error)) }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use events::{Aggregate as _, AggregateKey, AggregateKind, Event, EventId, Meta, NewEvent, Recorded, Stock, StockChange};
    use uuid::Uuid;

    use super::*;
    use crate::{
        delivery::coalesce,
        projection::{Limits, Stored},
    };

    /// Panics over the versions 13, when it renders, and 17, when it stores.
    struct Superstitious;

    impl Projection for Superstitious {
        const NAME: &'static str = "superstitious";
        const AGGREGATES: &'static [AggregateKind] = &[Stock::KIND];
        const LIMITS: Limits = Limits { events: 10, bytes: 1024, in_flight: 1, within: STORED_WITHIN };

        type Write = u64;

        fn render(&self, event: &Event) -> anyhow::Result<u64> {
            assert_ne!(event.meta.version, 13, "the thirteenth");
            Ok(event.meta.version)
        }

        async fn store(&self, versions: Vec<u64>) -> Result<Vec<Outcome>, Systemic> {
            assert!(!versions.contains(&17), "the seventeenth");
            Ok(versions.into_iter().map(|_| Ok(Stored::Applied)).collect())
        }
    }

    async fn outcomes(versions: &[u64]) -> Result<Vec<Outcome>, Systemic> {
        let event = |version| -> Recorded {
            let meta = Meta {
                id: EventId::new(),
                key: AggregateKey::stock(Uuid::now_v7()),
                version,
                time: "2026-11-21T09:30:00Z".parse().unwrap(),
                caused_by: None,
                correlation_id: None,
                trace_parent: None,
            };
            NewEvent::<Stock> { meta, change: &StockChange::Removed {}, state: None }.encode().unwrap()
        };
        let chains = coalesce(versions.iter().map(|version| Delivery::of(*version, event(*version))));
        attempt(Arc::new(Superstitious), chains).await.result
    }

    #[tokio::test]
    async fn a_panic_is_poison_for_its_own_event_only() {
        let outcomes = outcomes(&[1, 13, 2]).await.unwrap();
        assert!(matches!(outcomes[..], [Ok(Stored::Applied), Err(Failure::Poison(_)), Ok(Stored::Applied)]));
        assert!(outcomes[1].as_ref().unwrap_err().to_string().contains("the thirteenth"));
    }

    #[tokio::test]
    async fn a_panic_over_several_is_nobodys_fault_until_it_is_one() {
        assert!(outcomes(&[1, 17]).await.is_err());
        assert!(matches!(outcomes(&[17]).await.unwrap()[..], [Err(Failure::Poison(_))]));
    }

    #[test]
    fn only_recorded_traces_get_a_span() {
        assert!(is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        assert!(!is_sampled(""));
    }
}
