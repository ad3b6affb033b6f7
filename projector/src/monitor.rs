//! Watches the feeds: how far behind each is, and whether it makes progress. Readiness is judged by that, not by connections.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
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
use serde_json::{Value, json};
use service::ops::{Check, Report};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::{
    consumer::Surroundings,
    feed::{Feed, Lag, Phase},
    projections::ALL,
};

/// Often enough for a graph, and for "is it keeping up".
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Counting dead letters reads their headers: only when there are others than before, and not more often than this.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// An event that is tried again and again, here or in another process, holds the floor for as long as its budget lasts, and what
/// a dead process had comes again after `ack_wait`; longer is a fault.
const STALLED_AFTER: Duration = Duration::from_mins(5);
/// Counting stops when nothing comes for this long: the letters were purged meanwhile.
const LETTER_COMES_WITHIN: Duration = Duration::from_secs(5);

/// All feeds of the process.
#[derive(Debug, Clone, Default)]
pub struct Feeds(Arc<Mutex<Vec<Arc<Feed>>>>);

impl Feeds {
    pub fn add(&self, feed: Arc<Feed>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(feed);
    }

    pub fn remove(&self, ended: &Arc<Feed>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|feed| !Arc::ptr_eq(feed, ended));
    }

    pub fn all(&self) -> Vec<Arc<Feed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn to_json(&self) -> Value {
        json!({ "projections": self.all().iter().map(|feed| feed.status()).collect::<Vec<_>>() })
    }
}

/// Ready while every feed consumes, or holds on purpose.
pub fn readiness(feeds: &Feeds, around: &Surroundings) -> Report {
    let connected = around.jetstream.client().connection_state() == async_nats::connection::State::Connected;
    let broker = if connected { Check::passed("broker") } else { Check::failed("broker", "not connected") };
    let mut checks = vec![broker];
    for feed in feeds.all() {
        checks.push(match feed.phase() {
            Phase::Waiting { why } => Check::failed(feed.projection, why),
            Phase::Holding { why, .. } => Check::failed(feed.projection, format!("holds: {why}")).optional(),
            Phase::Consuming if feed.is_stalled() => {
                Check::failed(feed.projection, "consumes, but nothing is answered although events wait")
            }
            Phase::Consuming => Check::passed(feed.projection),
        });
    }
    Report::of(checks)
}

/// Looks at every feed each second, until told to stop.
pub async fn watch(feeds: Feeds, around: Surroundings, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = HashMap::new();
    let mut letters = Letters::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let feeds = feeds.all();
        if feeds.is_empty() {
            continue;
        }
        let look = async {
            for feed in &feeds {
                // While the broker is away nothing is known; the connection's own check says so.
                if let Err(error) = look_at(feed, &around, &mut progress).await {
                    feed.set_lag(None);
                    around.metrics.forget_lag(feed.projection);
                    debug!(projection.name = feed.projection, error = format!("{error:#}"), "The lag is not known: {error:#}");
                }
            }
            if let Err(error) = letters.count(&around).await {
                debug!(error = format!("{error:#}"), "The dead letters cannot be counted: {error:#}");
            }
        };
        if stop.run_until_cancelled(Box::pin(look)).await.is_none() {
            return Ok(());
        }
    }
}

async fn look_at(feed: &Feed, around: &Surroundings, progress: &mut HashMap<String, Progress>) -> anyhow::Result<()> {
    let info = consumer_info(&around.jetstream, &feed.durable).await?;
    let lag = lag(&around.jetstream, &info, around.clock.now()).await?;
    feed.set_floor(info.ack_floor.stream_sequence);
    feed.set_lag(Some(lag));
    if feed.is_serving() {
        around.metrics.set_lag(feed.projection, lag.events, lag.seconds);
    }
    let held_up = progress.entry(feed.durable.clone()).or_insert_with(|| Progress::new(Instant::now()));
    let stalled = held_up.is_stalled(Instant::now(), info.ack_floor.stream_sequence, lag.events, feed.is_holding());
    if stalled && !feed.is_stalled() {
        error!(
            projection.name = feed.projection,
            lag = lag.events,
            "{} consumes, but nothing is answered although {} events wait",
            feed.projection,
            lag.events
        );
    }
    feed.set_stalled(stalled);
    Ok(())
}

/// Since when nothing was answered, though something could have been.
#[derive(Debug)]
struct Progress {
    floor: u64,
    since: Instant,
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self { floor: 0, since: now }
    }

    fn is_stalled(&mut self, now: Instant, floor: u64, lag: u64, holding: bool) -> bool {
        if floor != self.floor || lag == 0 || holding {
            *self = Self { floor, since: now };
        }
        now - self.since > STALLED_AFTER
    }
}

/// What the broker knows of a durable consumer.
pub async fn consumer_info(jetstream: &jetstream::Context, durable: &str) -> anyhow::Result<Info> {
    let consumer: consumer::Consumer<consumer::pull::Config> =
        jetstream.get_consumer_from_stream(durable, EVENTS_STREAM).await.with_context(|| format!("no consumer {durable}"))?;
    Ok(consumer.cached_info().clone())
}

/// Events that were not answered, and the age of the oldest of them.
pub async fn lag(jetstream: &jetstream::Context, info: &Info, now: DateTime<Utc>) -> anyhow::Result<Lag> {
    let events = info.num_pending + info.num_ack_pending as u64;
    if events == 0 {
        return Ok(Lag::default());
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
    Ok(Lag { events, seconds: age.unwrap_or_default() })
}

/// The dead letters, counted anew whenever the stream changed.
#[derive(Debug, Default)]
struct Letters {
    counted: Option<(u64, u64, u64)>,
    next: Option<Instant>,
}

impl Letters {
    async fn count(&mut self, around: &Surroundings) -> anyhow::Result<()> {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        let stream = around.jetstream.get_stream(DLQ_STREAM).await?;
        let State { messages, last_sequence, first_sequence, .. } = stream.cached_info().state;
        let state = (messages, first_sequence, last_sequence);
        if self.counted == Some(state) {
            return Ok(());
        }
        self.next = Some(Instant::now() + COUNT_EVERY);
        let counts = dead_letters(&around.jetstream).await?;
        for about in ALL {
            around.metrics.set_dead_letters(about.name, counts.get(about.name).copied().unwrap_or_default());
        }
        info!(letters = messages, "There are {messages} dead letters");
        self.counted = Some(state);
        Ok(())
    }
}

/// How many distinct events were put aside, by projection (PROTOCOL P6).
pub async fn dead_letters(jetstream: &jetstream::Context) -> anyhow::Result<HashMap<String, usize>> {
    let stream = jetstream.get_stream(DLQ_STREAM).await?;
    let mut left = stream.cached_info().state.messages;
    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    if left == 0 {
        return Ok(HashMap::new());
    }
    let config = consumer::pull::OrderedConfig { deliver_policy: DeliverPolicy::All, headers_only: true, ..Default::default() };
    let mut letters = stream.create_consumer(config).await?.messages().await?;
    while left > 0 {
        let Some(letter) = timeout(LETTER_COMES_WITHIN, letters.next()).await.context("no letter came")? else { break };
        let letter = letter?;
        left = letter.info().map_err(|error| anyhow::anyhow!(error))?.pending;
        let Some(projection) = letter.subject.strip_prefix(DLQ_PREFIX).and_then(|rest| rest.split('.').nth(1)) else { continue };
        let id = letter
            .headers
            .as_ref()
            .and_then(|headers| headers.get(MESSAGE_ID))
            .map_or_else(|| letter.subject.to_string(), ToString::to_string);
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
            let mut progress = Progress { floor: 7, since: start };
            progress.is_stalled(later, floor, lag, holding)
        };
        assert!(stalled(7, 10, false));
        assert!(!stalled(8, 10, false), "the floor moved");
        assert!(!stalled(7, 0, false), "nothing waits");
        assert!(!stalled(7, 10, true), "it holds on purpose");
    }
}
