//! Holds while the store is away: gives everything back, and tries one event at a time until one succeeds.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Attempt, Consumer, Next, Session, attempt};
use crate::{
    delivery::{Chain, coalesce},
    feed::Phase,
    projection::{Failure, Projection},
};

/// The first probe comes after this.
const FIRST_PROBE: Duration = Duration::from_millis(250);
/// Each further one after twice the time, but no longer than this.
const SLOWEST_PROBE: Duration = Duration::from_secs(4);
/// Everything was given back, so there is an event at once, unless another process has them all.
const PROBE_COMES_WITHIN: Duration = Duration::from_secs(1);

/// How many events a probe tries, as long as each is refused: twice as many as the one before, from the first to the last of these.
/// The broker hands out what was given back before anything new, and the same ones first.
const FEW: usize = 2;
const MANY: usize = 64;

/// What a probe showed.
enum Probe {
    /// The store took it, or says that it is the event's fault.
    Answers,
    Away(String),
    /// There was nothing to try.
    Nothing,
}

impl<P: Projection> Consumer<P> {
    /// Until a probe succeeds; `None` if told to stop meanwhile.
    pub(super) async fn hold(
        &mut self,
        session: Session,
        why: String,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Session>> {
        let since = self.around.clock.now();
        self.feed.set_phase(Phase::Holding { why: why.clone(), since });
        self.around.metrics.set_held(P::NAME, true);
        warn!(projection.name = P::NAME, generation = self.feed.generation, error = why, "{} holds: {why}", P::NAME);

        let outcome = self.probe_until_it_answers(session, why, stop).await;
        self.around.metrics.set_held(P::NAME, false);
        if let Ok(Some(_)) = &outcome {
            self.feed.set_phase(Phase::Consuming);
            let held_ms = (self.around.clock.now() - since).num_milliseconds();
            info!(
                projection.name = P::NAME,
                generation = self.feed.generation,
                held_ms,
                "{} goes on after {held_ms} ms",
                P::NAME
            );
        }
        outcome
    }

    async fn probe_until_it_answers(
        &mut self,
        mut session: Session,
        mut why: String,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Session>> {
        self.give_everything_back(&mut session).await?;
        let (mut delay, mut most) = (FIRST_PROBE, FEW);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = sleep(delay) => {}
            }
            match self.probe(&mut session, most, stop).await? {
                Probe::Answers | Probe::Nothing => {
                    self.pace.one_attempt();
                    return Ok(Some(session));
                }
                Probe::Away(now) => {
                    self.give_everything_back(&mut session).await?;
                    delay = (delay * 2).min(SLOWEST_PROBE);
                    most = (most * 2).min(MANY);
                    if now != why {
                        warn!(
                            projection.name = P::NAME,
                            generation = self.feed.generation,
                            error = now,
                            "{} still holds: {now}",
                            P::NAME
                        );
                        if let Phase::Holding { since, .. } = self.feed.phase() {
                            self.feed.set_phase(Phase::Holding { why: now.clone(), since });
                        }
                        why = now;
                    }
                }
            }
        }
    }

    /// Stops pulling, lets what runs end, and gives back whatever was not applied.
    async fn give_everything_back(&mut self, session: &mut Session) -> anyhow::Result<()> {
        for message in session.pull.finish().await {
            session.open.receive(message);
        }
        session.queue.clear();
        session.queued_bytes = 0;
        while let Some(attempted) = session.attempts.join_next().await {
            self.keep_what_succeeded(session, attempted.context("an attempt ended without an outcome")?).await?;
        }
        self.retries.clear_waiting();
        self.feed.set_waiting(0);
        for sequence in session.open.give_back().await? {
            self.retries.given_back(sequence);
        }
        Ok(())
    }

    /// While holding, an outcome speaks for an event but not against it.
    async fn keep_what_succeeded(&mut self, session: &mut Session, attempt: Attempt) -> anyhow::Result<()> {
        self.around.metrics.observe_apply(P::NAME, attempt.took);
        for (chain, outcome) in attempt.chains.into_iter().zip(attempt.result.unwrap_or_default()) {
            if let Ok(stored) = outcome {
                self.done(session, chain, stored).await?;
            }
        }
        Ok(())
    }

    /// Tries one event after the other until the store takes one: then those before it are at fault themselves. As long as it takes
    /// none, nobody is blamed.
    async fn probe(&mut self, session: &mut Session, most: usize, stop: &CancellationToken) -> anyhow::Result<Probe> {
        let mut refused: Vec<(String, Attempt)> = Vec::new();
        while refused.len() < most && !stop.is_cancelled() {
            let Some(tried) = self.try_one(session).await? else { break };
            if let Some(why) = refusal(&tried) {
                for head in tried.chains.iter().map(Chain::head) {
                    self.retries.refused(head.sequence, self.around.clock.now(), self.feed.applied());
                }
                refused.push((why, tried));
                self.ask_for_more_time(session).await?;
                continue;
            }
            let mut shown = self.judge_probe(session, tried).await?;
            for (why, blamed) in refused {
                if let Probe::Away(_) = shown {
                    break;
                }
                // What failed as a whole was one event, and another one did not.
                let result = blamed.result.or_else(|_| Ok(vec![Err(Failure::Transient(anyhow::anyhow!(why)))]));
                shown = self.judge_probe(session, Attempt { result, ..blamed }).await?;
            }
            return Ok(shown);
        }
        Ok(refused.into_iter().next().map_or(Probe::Nothing, |(why, _)| Probe::Away(why)))
    }

    async fn try_one(&self, session: &mut Session) -> anyhow::Result<Option<Attempt>> {
        let Some(message) = session.pull.one(PROBE_COMES_WITHIN).await? else { return Ok(None) };
        let Some(delivery) = session.open.receive(message) else { return Ok(None) };
        Ok(Some(attempt(Arc::clone(&self.projection), coalesce([delivery])).await))
    }

    async fn judge_probe(&mut self, session: &mut Session, attempted: Attempt) -> anyhow::Result<Probe> {
        Ok(match self.settle(session, attempted).await? {
            Some(Next::Hold(why)) => Probe::Away(why),
            Some(Next::Stop) | None => Probe::Answers,
        })
    }
}

/// Why the store did not take the one event of a probe; `None` if it did, or said that it never will.
fn refusal(tried: &Attempt) -> Option<String> {
    match &tried.result {
        Err(systemic) => Some(systemic.to_string()),
        Ok(outcomes) => match outcomes.first() {
            Some(Err(Failure::Transient(error))) => Some(format!("{error:#}")),
            _ => None,
        },
    }
}
