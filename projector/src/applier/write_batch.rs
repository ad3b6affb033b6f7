//! Writes one batch: decode, render, store. A panic is a result like any other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use events::{DecodeError, envelope::header};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::{Span, info_span};

use crate::{
    projection::{EventFailure, EventResult, Projection, SystemicFailure},
    source_event::{EventGroup, SourceEvent},
};

/// Timeout of all requests for one batch. Longer than that of a single request to a store; shorter than `ack_wait`, and than a stop
/// may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(18);

/// A batch whose write has ended.
#[derive(Debug)]
pub struct FinishedBatch {
    pub groups: Vec<EventGroup>,
    /// One result for the head of each group, in the same order.
    pub results: Result<Vec<EventResult>, SystemicFailure>,
    pub took: Duration,
}

/// Applies the head of each group.
pub async fn write_batch<P: Projection>(projection: Arc<P>, groups: Vec<EventGroup>) -> FinishedBatch {
    let started = Instant::now();
    let spans: Vec<Span> = groups.iter().map(|group| span::<P>(group.head())).collect();
    let rendered: Vec<Result<P::Write, EventFailure>> =
        groups.iter().zip(&spans).map(|(group, span)| span.in_scope(|| render(&*projection, group.head()))).collect();
    let results = store_rendered(&*projection, rendered).await;
    drop(spans);
    FinishedBatch { groups, results, took: started.elapsed() }
}

/// The event's part in the trace of the request that caused it. Without a sampled trace no span is created.
fn span<P: Projection>(event: &SourceEvent) -> Span {
    let Some(traceparent) = event.header(header::TRACE_PARENT).filter(|traceparent| is_sampled(traceparent)) else {
        return Span::none();
    };
    let span = info_span!("apply_event", projection.name = P::NAME, event.id = event.event_id(), event.sequence = event.sequence);
    service::telemetry::set_parent(&span, Some(traceparent));
    span
}

/// Whether a W3C trace context's last flag bit is set.
fn is_sampled(traceparent: &str) -> bool {
    traceparent.rsplit('-').next().and_then(|flags| u8::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & 1 == 1)
}

fn render<P: Projection>(projection: &P, event: &SourceEvent) -> Result<P::Write, EventFailure> {
    let rendered = catch_unwind(AssertUnwindSafe(|| projection.render(&event.decode()?)));
    let rendered = rendered.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))));
    rendered.map_err(|error| match error.downcast_ref::<DecodeError>() {
        Some(DecodeError::Newer { event_type }) => EventFailure::Newer { event_type: event_type.clone() },
        _ => EventFailure::Poison(error),
    })
}

/// Stores what could be rendered, and puts the results back into the order of the events.
async fn store_rendered<P: Projection>(
    projection: &P,
    rendered: Vec<Result<P::Write, EventFailure>>,
) -> Result<Vec<EventResult>, SystemicFailure> {
    let mut failures: Vec<Option<EventFailure>> = Vec::with_capacity(rendered.len());
    let mut writes = Vec::with_capacity(rendered.len());
    for one in rendered {
        match one {
            Ok(write) => {
                writes.push(write);
                failures.push(None);
            }
            Err(failure) => failures.push(Some(failure)),
        }
    }
    let mut stored = if writes.is_empty() { Vec::new() } else { store(projection, writes).await? }.into_iter();
    let missing = || Err(EventFailure::Transient(anyhow!("the store gave no result")));
    Ok(failures.into_iter().map(|failure| failure.map_or_else(|| stored.next().unwrap_or_else(missing), Err)).collect())
}

async fn store<P: Projection>(projection: &P, writes: Vec<P::Write>) -> Result<Vec<EventResult>, SystemicFailure> {
    let alone = writes.len() == 1;
    match timeout(BATCH_TIMEOUT, AssertUnwindSafe(projection.store(writes)).catch_unwind()).await {
        Ok(Ok(results)) => results,
        Err(_) => Err(SystemicFailure(anyhow!("the store has not answered for {} s", BATCH_TIMEOUT.as_secs()))),
        Ok(Err(panic)) => {
            let error = anyhow!("panicked: {}", panic_text(&*panic));
            // With several events the culprit is unknown; the hold probes them one at a time.
            if alone { Ok(vec![Err(EventFailure::Poison(error))]) } else { Err(SystemicFailure(error)) }
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
        connections::StoreClients,
        generations::Generation,
        projection::{WriteEffect, WriteLimits},
        source_event::coalesce,
    };

    /// Panics over the versions 13, when it renders, and 17, when it stores.
    struct PanicsAtThirteen;

    impl Projection for PanicsAtThirteen {
        const NAME: &'static str = "superstitious";
        const AGGREGATES: &'static [AggregateKind] = &[Stock::KIND];
        const LIMITS: WriteLimits = WriteLimits { events: 10, bytes: 1024, in_flight: 1, timeout: BATCH_TIMEOUT };

        type Write = u64;

        fn open(_: &StoreClients, _: &Generation) -> Self {
            Self
        }

        fn render(&self, event: &Event) -> anyhow::Result<u64> {
            assert_ne!(event.meta.version, 13, "the thirteenth");
            Ok(event.meta.version)
        }

        async fn store(&self, versions: Vec<u64>) -> Result<Vec<EventResult>, SystemicFailure> {
            assert!(!versions.contains(&17), "the seventeenth");
            Ok(versions.into_iter().map(|_| Ok(WriteEffect::Applied)).collect())
        }
    }

    async fn results(versions: &[u64]) -> Result<Vec<EventResult>, SystemicFailure> {
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
        let groups = coalesce(versions.iter().map(|version| SourceEvent::of(*version, event(*version))));
        write_batch(Arc::new(PanicsAtThirteen), groups).await.results
    }

    #[tokio::test]
    async fn a_panic_is_poison_for_its_own_event_only() {
        let results = results(&[1, 13, 2]).await.unwrap();
        assert!(matches!(results[..], [Ok(WriteEffect::Applied), Err(EventFailure::Poison(_)), Ok(WriteEffect::Applied)]));
        assert!(results[1].as_ref().unwrap_err().to_string().contains("the thirteenth"));
    }

    #[tokio::test]
    async fn a_panic_over_several_is_nobodys_fault_until_it_is_one() {
        assert!(results(&[1, 17]).await.is_err());
        assert!(matches!(results(&[17]).await.unwrap()[..], [Err(EventFailure::Poison(_))]));
    }

    #[test]
    fn only_recorded_traces_get_a_span() {
        assert!(is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        assert!(!is_sampled(""));
    }
}
