//! Judges what came of a batch, and answers the broker.

use std::collections::HashMap;

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Attempt, Consumer, Next, Session};
use crate::{
    dead_letters::Reason,
    delivery::{Chain, Delivery},
    generations,
    metrics::Answered,
    projection::{Failure, Outcome, Projection, Stored},
    verdict::{Class, Verdict, jittered},
};

impl<P: Projection> Consumer<P> {
    /// Answers the events of a batch. `Some` if the store, or what we make of its events, cannot be trusted now.
    pub(super) async fn settle(&mut self, session: &mut Session, attempt: Attempt) -> anyhow::Result<Option<Next>> {
        self.around.metrics.observe_apply(P::NAME, attempt.took);
        let outcomes = match attempt.result {
            Ok(outcomes) => outcomes,
            Err(systemic) => {
                self.pace.begin_anew(attempt.chains.len());
                return Ok(Some(Next::Hold(systemic.to_string())));
            }
        };
        let strained = outcomes.iter().any(|outcome| matches!(outcome, Err(Failure::Transient(_))));
        self.pace.answered(attempt.chains.len(), attempt.took, strained);

        let mut failed = Vec::new();
        for (chain, outcome) in attempt.chains.into_iter().zip(outcomes) {
            match outcome {
                Ok(stored) => self.done(session, chain, stored).await?,
                Err(failure) => failed.push((chain, failure)),
            }
        }
        if let Some(why) = self.too_much_poison(&failed).await? {
            return Ok(Some(Next::Hold(why)));
        }
        for (chain, failure) in failed {
            if let Some(why) = self.judge(session, chain, failure).await? {
                // The others are given back by the hold, unjudged.
                return Ok(Some(Next::Hold(why)));
            }
        }
        let waiting = self.retries.waiting();
        self.feed.set_waiting(waiting);
        let too_many = waiting > session.open.waiting_limit();
        Ok(too_many.then(|| Next::Hold(format!("{waiting} events wait for another try"))))
    }

    /// The store has the chain's newest event: all of the chain is answered.
    pub(super) async fn done(&mut self, session: &mut Session, chain: Chain, stored: Stored) -> anyhow::Result<()> {
        let superseded = chain.len() as u64 - u64::from(stored == Stored::Applied);
        self.around.metrics.count(P::NAME, Answered::Applied, u64::from(stored == Stored::Applied));
        self.around.metrics.count(P::NAME, Answered::Superseded, superseded);
        self.feed.add_applied(1);
        self.mass_poison.note_stored();
        for sequence in chain.sequences() {
            self.retries.answered(sequence);
            session.open.ack(sequence).await?;
        }
        Ok(())
    }

    /// Decides about a chain whose newest event failed. `Some` is a reason to hold.
    async fn judge(&mut self, session: &mut Session, chain: Chain, failure: Failure) -> anyhow::Result<Option<String>> {
        let head = chain.head();
        let tries = self.retries.failed(head.sequence, self.around.clock.now(), self.feed.applied());
        let others_applied = tries.applied_before.is_some_and(|before| self.feed.applied() > before);
        let shown = failure.to_string();
        let outcome: Outcome = Err(failure);
        match Verdict::of(&outcome, tries.failed, others_applied, &self.around.backoff) {
            Verdict::Done => Ok(None),
            Verdict::RetryAfter(at_most) => {
                let delay = jittered(at_most);
                self.around.metrics.count_retry(P::NAME);
                warn!(
                    projection.name = P::NAME,
                    event.id = head.event_id(),
                    attempt = tries.failed,
                    delay_ms = delay.as_millis(),
                    error = shown,
                    "Will try event {} again: {shown}",
                    head.event_id()
                );
                self.retries.wait(Instant::now() + delay, chain);
                Ok(None)
            }
            Verdict::DeadLetter(class) => {
                let first_failed_at = tries.first_failed_at.unwrap_or_else(|| self.around.clock.now());
                let reason = Reason { class, error: shown, attempts: tries.failed, first_failed_at };
                self.put_aside(session, chain, reason).await
            }
            Verdict::Hold => {
                Ok(Some(format!("event {} failed {} times and no other succeeded: {shown}", head.event_id(), tries.failed)))
            }
        }
    }

    /// Puts the chain's newest event aside; the next older one takes its place.
    async fn put_aside(&mut self, session: &mut Session, chain: Chain, reason: Reason) -> anyhow::Result<Option<String>> {
        let (head, superseded) = chain.split();
        let answered = match self.record(&head, &reason).await {
            Ok(answered) => answered,
            // Everything is given back by the hold, this event too.
            Err(error) => return Ok(Some(format!("event {} cannot be put aside: {error:#}", head.event_id()))),
        };
        self.around.metrics.count(P::NAME, answered, 1);
        self.retries.answered(head.sequence);
        session.open.ack(head.sequence).await?;
        // Oldest last in the chain, so that it ends at the front of the queue in order.
        for delivery in superseded {
            session.queued_bytes += delivery.size();
            session.queue.push_front(delivery);
        }
        Ok(None)
    }

    /// Only the serving generation writes letters; another is dirty from then on (PROTOCOL P6).
    async fn record(&self, head: &Delivery, reason: &Reason) -> anyhow::Result<Answered> {
        let (id, class, shown) = (head.event_id(), reason.class, &reason.error);
        if self.feed.is_serving() {
            self.dead_letters.store(head, reason).await?;
            error!(
                projection.name = P::NAME,
                event.id = id,
                event.subject = head.subject(),
                class = class.as_str(),
                attempts = reason.attempts,
                error = shown,
                "Put event {id} aside: {shown}"
            );
            return Ok(Answered::DeadLetter(class));
        }
        generations::mark_dirty(&self.around.db, P::NAME, self.feed.generation).await?;
        error!(
            projection.name = P::NAME,
            generation = self.feed.generation,
            event.id = id,
            error = shown,
            "Skipped event {id}; generation {} is dirty: {shown}",
            self.feed.generation
        );
        Ok(Answered::Skipped)
    }

    /// Whether so many aggregates have suddenly become poison that we are to blame, not they. Those of which events were put
    /// aside before do not count: a replay meets them all again.
    async fn too_much_poison(&mut self, failed: &[(Chain, Failure)]) -> anyhow::Result<Option<String>> {
        let poison: HashMap<&str, (&Delivery, &Failure)> = failed
            .iter()
            .filter(|(_, failure)| matches!(failure, Failure::Poison(_)))
            .map(|(chain, failure)| (chain.head().subject(), (chain.head(), failure)))
            .collect();
        for subject in poison.keys() {
            self.mass_poison.note_poison(subject);
        }
        if poison.is_empty() || self.mass_poison.suspicious().is_none() {
            return Ok(None);
        }
        for (subject, (head, _)) in &poison {
            if self.dead_letters.knows_aggregate_of(head, Class::Poison).await? {
                debug!(projection.name = P::NAME, event.subject = subject, "Events of {subject} were put aside before");
                self.mass_poison.forget(subject);
            }
        }
        let Some(suspicious) = self.mass_poison.suspicious() else { return Ok(None) };
        let example = poison.iter().find(|(subject, _)| suspicious.contains(*subject));
        Ok(example.map(|(subject, (_, failure))| {
            format!(
                "events of {} aggregates cannot be applied, which is more than can be wrong with events; one is {subject}: {failure}",
                suspicious.len()
            )
        }))
    }
}
