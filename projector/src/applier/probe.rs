//! Probes a store that was unavailable: applies one event after the other until the store takes one (decision 0303).
//!
//! As long as none is taken, no event is at fault and no try is counted. Once one is taken, those that were refused before it failed
//! for a reason of their own, and are judged.

use std::sync::Arc;

use anyhow::anyhow;

use super::{Applier, EventGroup, FinishedBatch, Judgement, write_batch};
use crate::{
    projection::{EventFailure, Projection},
    source_event::SourceEvent,
};

/// What the try of one event showed.
#[derive(Debug)]
pub enum ProbeResult {
    /// The store did not take it. The event belongs to the round from now on.
    Refused,
    /// It was not written, which says nothing of the store.
    Undecided(Judgement),
    /// The store answers. All events of the round are judged.
    Answered(Judgement),
}

/// One round of probing.
#[derive(Debug, Default)]
pub struct Probe {
    refused: Vec<(String, FinishedBatch)>,
}

impl Probe {
    /// How many events the store refused in this round.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Why the first of them was refused.
    pub fn into_reason(self) -> Option<String> {
        self.refused.into_iter().next().map(|(why, _)| why)
    }
}

impl<P: Projection> Applier<P> {
    /// Applies one event of a round.
    pub async fn probe(&mut self, round: &mut Probe, event: SourceEvent) -> anyhow::Result<ProbeResult> {
        let tried = write_batch(Arc::clone(&self.projection), vec![EventGroup::single(event)]).await;
        if let Some(why) = refusal(&tried) {
            for event in tried.groups.iter().map(EventGroup::head) {
                self.retries.note_refusal(event.sequence, self.clock.now(), self.running.applied());
            }
            round.refused.push((why, tried));
            return Ok(ProbeResult::Refused);
        }
        let only_newer = tried.results.iter().flatten().all(|result| matches!(result, Err(EventFailure::Newer { .. })));
        let mut judgement = self.judge(tried).await?;
        if only_newer {
            return Ok(ProbeResult::Undecided(judgement));
        }
        for (why, batch) in round.refused.drain(..) {
            if judgement.hold.is_some() {
                break;
            }
            // What failed as a whole was one event, and another one succeeded.
            let results = batch.results.or_else(|_| Ok(vec![Err(EventFailure::Transient(anyhow!(why)))]));
            judgement.merge(self.judge(FinishedBatch { results, ..batch }).await?);
        }
        Ok(ProbeResult::Answered(judgement))
    }

    /// After a hold one batch is written at a time, then more.
    pub fn resume_slowly(&mut self) {
        self.pace.one_in_flight();
    }
}

/// Why the store did not take the one event of a probe; `None` if it did, or if it never will.
fn refusal(tried: &FinishedBatch) -> Option<String> {
    match &tried.results {
        Err(systemic) => Some(systemic.to_string()),
        Ok(results) => match results.first() {
            Some(Err(failure @ EventFailure::Transient(_))) => Some(failure.to_string()),
            _ => None,
        },
    }
}
