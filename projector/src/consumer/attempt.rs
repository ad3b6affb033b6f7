//! One try of a batch: decode, render, store. A panic is an outcome like any other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use events::envelope::header;
use futures_util::FutureExt as _;
use tracing::{Span, info_span};

use super::delivery::{Chain, Delivery};
use crate::projection::{Failure, Outcome, Projection, Systemic};

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
    let spans: Vec<Span> = chains.iter().filter_map(|chain| span::<P>(chain.head())).collect();
    let rendered: Vec<Result<P::Write, Failure>> = chains.iter().map(|chain| render(&*projection, chain.head())).collect();
    let result = store_all(&*projection, rendered).await;
    drop(spans);
    Attempt { chains, result, took: started.elapsed() }
}

/// The event's part in the trace of the request that caused it; none if nobody records that trace.
fn span<P: Projection>(delivery: &Delivery) -> Option<Span> {
    let traceparent = delivery.header(header::TRACE_PARENT).filter(|traceparent| is_sampled(traceparent))?;
    let span =
        info_span!("apply_event", projection.name = P::NAME, event.id = delivery.event_id(), event.sequence = delivery.sequence);
    service::telemetry::set_parent(&span, Some(traceparent));
    Some(span)
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
    match AssertUnwindSafe(projection.store(writes)).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
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
    use super::*;

    #[test]
    fn only_recorded_traces_get_a_span() {
        assert!(is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_sampled("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        assert!(!is_sampled(""));
    }
}
