//! Watches the generations that are fed: the lag of each, and whether it makes progress. Readiness depends on that, not on connections.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::jetstream::{
    self,
    consumer::{self, DeliverPolicy, Info},
    stream::{RawMessageErrorKind, State},
};
use chrono::{DateTime, Utc};
use events::{
    envelope::header::MESSAGE_ID,
    subject::{DLQ_PREFIX, DLQ_STREAM, EVENTS_STREAM},
};
use futures_util::StreamExt as _;
use service::ops::{Check, Report};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::{
    connections::Dependencies,
    metrics::GenerationLag,
    projections::ALL,
    running::{FeedState, RunningGeneration, RunningGenerations},
};

/// How often lag and progress are measured.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Counting dead letters reads all their headers: only when their stream changed, and not more often than this.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// An ack floor that stands still for longer is a fault. Less is not: an event that is retried, here or in another process, keeps the
/// floor until its budget is spent, and the events of a process that died are redelivered after `ack_wait`.
const STALLED_AFTER: Duration = Duration::from_mins(5);
/// Counting stops when nothing comes for this long: the dead letters were purged meanwhile.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Ready while every serving generation consumes, holds or is paused. Others are shown, but serve nobody.
pub fn readiness(generations: &RunningGenerations, dependencies: &Dependencies) -> Report {
    let connected = dependencies.jetstream.client().connection_state() == async_nats::connection::State::Connected;
    let broker = if connected { Check::passed("broker") } else { Check::failed("broker", "not connected") };
    let mut checks = vec![broker];
    for running in generations.all() {
        let name = running.name().to_owned();
        let check = match running.state() {
            FeedState::Waiting { why } => Check::failed(name, why),
            FeedState::Holding { why, .. } => Check::failed(name, format!("holds: {why}")).optional(),
            FeedState::Paused => Check::failed(name, "paused by an operator").optional(),
            FeedState::Consuming if running.is_stalled() => {
                Check::failed(name, "consumes, but acknowledges nothing although events wait")
            }
            FeedState::Consuming => Check::passed(name),
        };
        checks.push(if running.is_serving() { check } else { check.optional() });
    }
    Report::of(checks)
}

/// Looks at every generation each second, until stopped.
pub async fn watch(generations: RunningGenerations, dependencies: Dependencies, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = HashMap::new();
    let mut dead_letters = DeadLetterCount::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let generations = generations.all();
        if generations.is_empty() {
            continue;
        }
        let look = async {
            for running in &generations {
                // While the broker is unavailable nothing is known; the check of the connection says so.
                if let Err(error) = look_at(running, &dependencies, &mut progress).await {
                    running.set_lag(None);
                    debug!(
                        projection.name = running.generation().projection,
                        generation = running.generation().number,
                        error = format!("{error:#}"),
                        "The lag of {} is not known: {error:#}",
                        running.name()
                    );
                }
            }
            if let Err(error) = dead_letters.update(&dependencies).await {
                debug!(error = format!("{error:#}"), "The dead letters cannot be counted: {error:#}");
            }
        };
        if stop.run_until_cancelled(Box::pin(look)).await.is_none() {
            return Ok(());
        }
    }
}

async fn look_at(
    running: &RunningGeneration,
    dependencies: &Dependencies,
    progress: &mut HashMap<String, AckProgress>,
) -> anyhow::Result<()> {
    let info = consumer_info(&dependencies.jetstream, running.name()).await?;
    running.set_paused(info.paused);
    running.set_ack_floor(info.ack_floor.stream_sequence);
    let lag = lag(&dependencies.jetstream, &info, dependencies.clock.now()).await?;
    running.set_lag(Some(lag));
    let now = Instant::now();
    let progress = progress.entry(running.name().to_owned()).or_insert_with(|| AckProgress::new(now));
    let stopped_on_purpose = matches!(running.state(), FeedState::Holding { .. } | FeedState::Paused);
    let stalled = progress.is_stalled(now, info.ack_floor.stream_sequence, lag.events, stopped_on_purpose);
    if stalled && !running.is_stalled() {
        error!(
            projection.name = running.generation().projection,
            generation = running.generation().number,
            lag = lag.events,
            "{} consumes, but acknowledges nothing although {} events wait",
            running.name(),
            lag.events
        );
    }
    running.set_stalled(stalled);
    Ok(())
}

/// Since when the ack floor has not moved although it could have.
#[derive(Debug)]
struct AckProgress {
    floor: u64,
    since: Instant,
}

impl AckProgress {
    fn new(now: Instant) -> Self {
        Self { floor: 0, since: now }
    }

    fn is_stalled(&mut self, now: Instant, floor: u64, lag: u64, stopped_on_purpose: bool) -> bool {
        if floor != self.floor || lag == 0 || stopped_on_purpose {
            *self = Self { floor, since: now };
        }
        now - self.since > STALLED_AFTER
    }
}

/// Reads what the broker knows of a durable consumer.
pub async fn consumer_info(jetstream: &jetstream::Context, durable: &str) -> anyhow::Result<Info> {
    let consumer: consumer::Consumer<consumer::pull::Config> =
        jetstream.get_consumer_from_stream(durable, EVENTS_STREAM).await.with_context(|| format!("no consumer {durable}"))?;
    Ok(consumer.cached_info().clone())
}

/// Measures how many events were not acknowledged, and how old the oldest of them is.
pub async fn lag(jetstream: &jetstream::Context, info: &Info, now: DateTime<Utc>) -> anyhow::Result<GenerationLag> {
    let events = info.num_pending + info.num_ack_pending as u64;
    if events == 0 {
        return Ok(GenerationLag::default());
    }
    let stream = jetstream.get_stream_no_info(EVENTS_STREAM).await?;
    let filters = if info.config.filter_subjects.is_empty() {
        vec![info.config.filter_subject.clone()]
    } else {
        info.config.filter_subjects.clone()
    };
    let mut oldest: Option<DateTime<Utc>> = None;
    for filter in filters {
        match stream.raw_message_builder().sequence(info.ack_floor.stream_sequence + 1).next_by_subject(filter).send().await {
            Ok(message) => oldest = Some(oldest.map_or(message.time, |oldest| oldest.min(message.time))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let age = oldest.map(|oldest| (now - oldest).as_seconds_f64().max(0.0));
    Ok(GenerationLag { events, seconds: age.unwrap_or_default() })
}

/// The dead letters, counted again whenever their stream changed.
#[derive(Debug, Default)]
struct DeadLetterCount {
    counted: Option<(u64, u64, u64)>,
    next: Option<Instant>,
}

impl DeadLetterCount {
    async fn update(&mut self, dependencies: &Dependencies) -> anyhow::Result<()> {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        let stream = dependencies.jetstream.get_stream(DLQ_STREAM).await?;
        let State { messages, last_sequence, first_sequence, .. } = stream.cached_info().state;
        let state = (messages, first_sequence, last_sequence);
        if self.counted == Some(state) {
            return Ok(());
        }
        self.next = Some(Instant::now() + COUNT_EVERY);
        let counts = dead_letters(&dependencies.jetstream).await?;
        for projection in ALL {
            dependencies.metrics.set_dead_letters(projection.name, counts.get(projection.name).copied().unwrap_or_default());
        }
        info!(dead_letters = messages, "There are {messages} dead letters");
        self.counted = Some(state);
        Ok(())
    }
}

/// Counts the distinct events that are dead letters, by projection (PROTOCOL P6).
pub async fn dead_letters(jetstream: &jetstream::Context) -> anyhow::Result<HashMap<String, usize>> {
    let stream = jetstream.get_stream(DLQ_STREAM).await?;
    let mut left = stream.cached_info().state.messages;
    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    if left == 0 {
        return Ok(HashMap::new());
    }
    let config = consumer::pull::OrderedConfig { deliver_policy: DeliverPolicy::All, headers_only: true, ..Default::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    while left > 0 {
        let Some(message) = timeout(MESSAGE_TIMEOUT, messages.next()).await.context("no message came")? else { break };
        let message = message?;
        left = message.info().map_err(|error| anyhow::anyhow!(error))?.pending;
        let Some(projection) = message.subject.strip_prefix(DLQ_PREFIX).and_then(|rest| rest.split('.').nth(1)) else { continue };
        let id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(MESSAGE_ID))
            .map_or_else(|| message.subject.to_string(), ToString::to_string);
        ids.entry(projection.to_owned()).or_default().insert(id);
    }
    Ok(ids.into_iter().map(|(projection, ids)| (projection, ids.len())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_stands_still_is_a_stall_only_while_events_wait_and_nobody_holds() {
        let start = Instant::now();
        let later = start + STALLED_AFTER + Duration::from_secs(1);
        let stalled = |floor, lag, holding| {
            let mut progress = AckProgress { floor: 7, since: start };
            progress.is_stalled(later, floor, lag, holding)
        };
        assert!(stalled(7, 10, false));
        assert!(!stalled(8, 10, false), "the floor moved");
        assert!(!stalled(7, 0, false), "nothing waits");
        assert!(!stalled(7, 10, true), "it holds on purpose");
    }
}
