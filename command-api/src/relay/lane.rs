//! One lane of the relay: takes shards, claims their events, publishes them and deletes them from the outbox, until an error ends
//! the attempt and the lane reconnects.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::batch::{BatchPlan, OutgoingEvent, plan_batch};
use super::broker::Broker;
use super::claim::Claimer;
use super::deferred::DeferredAggregates;
use super::event::{JournalEvent, StoredEvent, SubjectKey};
use super::loss::LossDetector;
use super::ownership::ShardOwnership;
use super::publisher::{Publisher, ResolveOutcome};
use super::repair::ShardRepair;
use super::rewind::defer_diverged;
use super::send::{MessageIds, PublishAnswer, publish_batch};
use super::session::{LaneConnections, RelaySession};
use super::stream_extent::StreamExtent;
use super::throttle::LaneThrottle;
use super::watermark::{self, WatermarkCheck, Watermarks};
use super::{LaneError, RelayMetrics, RelayStatus};

/// A wake-up can be missed, because the process that commits is often not the owner of the shard. Polling finds the rest.
const POLL: Duration = Duration::from_millis(25);

/// The part of a stop's grace period in which the last events are published. The next owner of the shards publishes the rest.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// What a lane is started with.
pub struct LaneSettings {
    pub number: i16,
    /// The shards that it may own.
    pub shards: Vec<i16>,
    pub database: PgConnectOptions,
    pub nats_urls: Vec<String>,
    pub wake: watch::Receiver<()>,
    pub status: RelayStatus,
    pub metrics: RelayMetrics,
}

/// Runs the lane until `stop`. After an error that may pass, it reconnects with backoff.
pub async fn run(settings: LaneSettings, stop: CancellationToken) -> anyhow::Result<()> {
    let mut throttle = LaneThrottle::FULL;
    let mut extent = None;
    while !stop.is_cancelled() {
        let Err(error) = Box::pin(attempt(&settings, &stop, &mut throttle, &mut extent)).await else { continue };
        settings.status.released(&settings.shards);
        settings.status.waiting(settings.number, error.to_string());
        anyhow::ensure!(!matches!(error, LaneError::Misconfigured(_)), "{error}");
        let retry = throttle.retry_delay;
        warn!(relay.lane = settings.number, error = %error, retry_ms = retry.as_millis(), "Lane {} reconnects in {} ms: {error}", settings.number, retry.as_millis());
        let _stopped = stop.run_until_cancelled(sleep(retry)).await;
        throttle = throttle.after_error(&error);
    }
    settings.status.released(&settings.shards);
    Ok(())
}

/// Connects, and works until an error or `stop`.
async fn attempt(
    settings: &LaneSettings,
    stop: &CancellationToken,
    throttle: &mut LaneThrottle,
    extent: &mut Option<StreamExtent>,
) -> Result<(), LaneError> {
    // The broker first: a process that cannot publish must not keep shards from one that can.
    let connecting = async {
        let broker = Arc::new(Broker::connect(&settings.nats_urls).await?);
        Ok::<_, LaneError>(LaneConnections { broker, session: RelaySession::open(&settings.database).await? })
    };
    let Some(connected) = stop.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    let connections = connected?;
    let extent = extent.get_or_insert(connections.broker.extent_at_connect());
    let mut lane = Lane {
        settings,
        stop,
        throttle,
        connections,
        ownership: ShardOwnership::of(settings.shards.clone()),
        claimer: Claimer::new(),
        publisher: Publisher::new(settings.metrics.clone()),
        watermarks: Watermarks::default(),
        loss: LossDetector::since(extent),
        deferred: DeferredAggregates::none(settings.status.clone()),
    };
    settings.status.working(settings.number);
    let outcome = lane.work().await;
    // A lost session has nothing to release.
    if !matches!(outcome, Err(LaneError::Session(_))) {
        lane.connections.session.close().await;
    }
    outcome
}

/// One attempt of a lane: its connections, and what was learned through them.
struct Lane<'a> {
    settings: &'a LaneSettings,
    stop: &'a CancellationToken,
    throttle: &'a mut LaneThrottle,
    connections: LaneConnections,
    ownership: ShardOwnership,
    claimer: Claimer,
    publisher: Publisher,
    watermarks: Watermarks,
    loss: LossDetector<'a>,
    deferred: DeferredAggregates,
}

impl Lane<'_> {
    async fn work(&mut self) -> Result<(), LaneError> {
        let mut wake = self.settings.wake.clone();
        let mut claimed_ahead: Option<Vec<JournalEvent>> = None;
        // Messages can be lost while a lane reconnects.
        self.loss.check(&mut self.connections).await?;
        defer_diverged(&mut self.connections, &self.settings.shards, &self.settings.status, &mut self.deferred).await?;
        while !self.stop.is_cancelled() {
            self.connections.broker.check_connected()?;
            if self.ownership.attempt_is_due() {
                self.take_shards().await?;
            }
            let events = if let Some(events) = claimed_ahead.take() {
                events
            } else {
                // Otherwise the claim could return rows that are acknowledged already.
                self.delete_acknowledged().await?;
                if self.claimer.sweep_is_due() {
                    self.loss.check(&mut self.connections).await?;
                    self.check_watermarks_valid().await?;
                    self.claimer.sweep();
                }
                self.claim(&HashSet::new()).await?
            };
            if events.is_empty() {
                self.delete_acknowledged().await?;
                self.wait(&mut wake).await;
            } else {
                let claim_ahead = !self.claimer.sweep_is_due();
                claimed_ahead = self.publish(events, claim_ahead, MessageIds::Original).await?;
                *self.throttle = self.throttle.after_success();
            }
        }
        self.finish(claimed_ahead.unwrap_or_default()).await
    }

    /// Waits for a wake-up or the next poll.
    async fn wait(&self, wake: &mut watch::Receiver<()>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.connections.broker.connection_lost().cancelled() => {}
            () = sleep(POLL) => {}
            () = async { if wake.changed().await.is_err() { pending::<()>().await } } => {}
        }
    }

    /// Publishes what is committed by now, because no other process may be there to do it.
    async fn finish(&mut self, mut events: Vec<JournalEvent>) -> Result<(), LaneError> {
        let deadline = Instant::now() + FINISH_WITHIN;
        self.claimer.sweep();
        loop {
            self.publish(events, false, MessageIds::Original).await?;
            self.delete_acknowledged().await?;
            if Instant::now() >= deadline {
                return Ok(());
            }
            events = self.claim(&HashSet::new()).await?;
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    // Ownership: a shard is owned once its lock is held and the stream lacks nothing of it.

    /// Takes a few of the shards that have no owner. Repairs the stream first if it lost events of theirs.
    async fn take_shards(&mut self) -> Result<(), LaneError> {
        let (candidates, others) = self.ownership.candidates();
        let mut lost = self.lock_and_check(&candidates).await?;
        if !lost.is_empty() {
            // The stream has most likely lost events of the other shards too: one pass over the journal repairs them all.
            lost.extend(self.lock_and_check(&others).await?);
            self.repair(lost).await?;
        }
        self.ownership.attempted();
        Ok(())
    }

    /// Locks those of these shards that are free. Owns the intact ones; returns the others, and what they have lost.
    async fn lock_and_check(&mut self, shards: &[i16]) -> Result<Vec<(i16, String)>, LaneError> {
        let LaneConnections { session, broker } = &mut self.connections;
        let mut lost = Vec::new();
        for shard in session.try_lock(shards).await? {
            let watermark = match watermark::check(session, broker, shard).await? {
                WatermarkCheck::NoWatermark => None,
                WatermarkCheck::Intact(watermark) => Some(watermark),
                WatermarkCheck::Lost(why) => {
                    lost.push((shard, why));
                    continue;
                }
            };
            self.ownership.add(shard);
            self.claimer.add(shard, broker.extent_at_connect().messages == 0);
            self.settings.status.owns(shard, watermark.clone());
            if let Some(watermark) = watermark {
                self.watermarks.add(shard, watermark);
            }
            info!(relay.shard = shard, relay.lane = self.settings.number, "Took shard {shard}");
        }
        Ok(lost)
    }

    /// Publishes every event of these shards that the stream does not hold, then owns them.
    async fn repair(&mut self, lost: Vec<(i16, String)>) -> Result<(), LaneError> {
        let shards = lost.iter().map(|(shard, _)| *shard).collect();
        for (shard, why) in lost {
            warn!(relay.shard = shard, "Repairing shard {shard} from the journal, because the broker lost events of it: {why}");
            self.settings.status.owns(shard, None);
            self.settings.status.repairs(shard, why);
        }
        let mut repair = ShardRepair::begin(&mut self.connections.session, shards).await?;
        while let Some(events) = repair.next(&mut self.connections.session, self.throttle.batch_bytes).await? {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            // In an empty stream there are no last messages to look up, except of events that were published and then forgotten.
            let first_to_look_up = if self.connections.broker.extent_at_connect().messages == 0 { 2 } else { 1 };
            let known = events.iter().filter(|event| event.version >= first_to_look_up).map(|event| event.key.clone()).collect();
            self.publisher.look_up(&mut self.connections, known).await?;
            self.publish(events, false, MessageIds::Repair).await?;
            self.delete_acknowledged().await?;
            repair.return_unpublished(&mut self.connections.session, &self.deferred).await?;
        }
        self.loss.check(&mut self.connections).await?;
        self.watermarks.validate(&mut self.connections, repair.shards()).await?;
        for &shard in repair.shards() {
            self.settings.status.repaired(shard);
            self.ownership.add(shard);
            self.claimer.add(shard, true);
            info!(relay.shard = shard, "Repaired shard {shard}");
        }
        Ok(())
    }

    /// Fails if another lane has detected a loss.
    async fn check_watermarks_valid(&mut self) -> Result<(), LaneError> {
        let owned: Vec<i16> = self.ownership.owned().iter().copied().collect();
        LossDetector::check_invalidated(&mut self.connections.session, &owned).await
    }

    // Events: claim, batch, publish, resolve, delete.

    /// Returns the next unpublished events, after reading the last messages of their subjects where those are needed. The batch in
    /// flight does not need them: its ack tells.
    async fn claim(&mut self, in_flight: &HashSet<SubjectKey>) -> Result<Vec<JournalEvent>, LaneError> {
        let session = &mut self.connections.session;
        if self.ownership.owned().is_empty() {
            session.ping_if_due().await?;
            return Ok(Vec::new());
        }
        let events = self.claimer.claim(session, &self.ownership, &self.deferred, self.throttle.batch_bytes).await?;
        let unknown = self.claimer.to_look_up(&events, in_flight);
        self.publisher.look_up(&mut self.connections, unknown).await?;
        self.claimer.verify(&events, self.publisher.last_messages());
        Ok(events)
    }

    /// Publishes events: as many as possible as one batch, the others one by one. Returns the next events, if it was to claim them
    /// while the batch was in flight.
    async fn publish(
        &mut self,
        mut events: Vec<JournalEvent>,
        mut claim_ahead: bool,
        ids: MessageIds,
    ) -> Result<Option<Vec<JournalEvent>>, LaneError> {
        let mut claimed = None;
        while !events.is_empty() {
            // An aggregate may have been deferred after its events were claimed.
            events.retain(|event| !self.deferred.is_backing_off(&event.key));
            let is_deferred = |key: &SubjectKey| self.deferred.contains(key);
            let BatchPlan { together, already_stored, mut unresolved } =
                plan_batch(events, self.publisher.last_messages(), is_deferred);
            for (event, stored) in already_stored {
                self.acknowledge(&event, stored);
            }
            if !together.is_empty() {
                let (answer, next) = self.publish_and_claim(&together, claim_ahead, ids).await?;
                claimed = claimed.or(next);
                claim_ahead = false;
                unresolved.splice(0..0, self.acknowledge_batch(together, answer)?);
            }
            events = self.resolve_first_of_each(unresolved, ids).await?;
        }
        Ok(claimed)
    }

    /// Publishes a batch. While it is in flight, deletes what was acknowledged before and claims the next events: most of the
    /// relay's speed comes from doing both at the same time.
    async fn publish_and_claim(
        &mut self,
        batch: &[OutgoingEvent],
        claim_ahead: bool,
        ids: MessageIds,
    ) -> Result<(PublishAnswer, Option<Vec<JournalEvent>>), LaneError> {
        let broker = Arc::clone(&self.connections.broker);
        let answered = CancellationToken::new();
        let publishing = async {
            let _answered = answered.clone().drop_guard();
            publish_batch(&broker, batch, ids).await
        };
        let working = async {
            if self.watermarks.delete_pays() {
                self.delete_acknowledged().await?;
            }
            let mut claimed = None;
            if claim_ahead {
                let in_flight: HashSet<SubjectKey> = batch.iter().map(|out| out.event.key.clone()).collect();
                claimed = Some(self.claim(&in_flight).await?);
            }
            self.connections.session.keep_alive_while(answered.cancelled()).await?;
            Ok(claimed)
        };
        tokio::try_join!(publishing, working)
    }

    /// Returns the events that the answer does not confirm. They are to be resolved one by one.
    fn acknowledge_batch(&mut self, batch: Vec<OutgoingEvent>, answer: PublishAnswer) -> Result<Vec<JournalEvent>, LaneError> {
        match answer {
            PublishAnswer::Stored { sequence } => {
                for (event, stored) in self.publisher.record_batch(&mut self.loss, &batch, sequence)? {
                    self.acknowledge(event, stored);
                }
                Ok(Vec::new())
            }
            PublishAnswer::Unavailable(reason) => Err(LaneError::Unavailable(reason)),
            PublishAnswer::Unconfirmed | PublishAnswer::Duplicate | PublishAnswer::Rejected(_) => {
                debug!(events = batch.len(), ?answer, "Resolving a batch one by one");
                Ok(batch.into_iter().map(|out| out.event).collect())
            }
        }
    }

    /// Resolves the first event of each aggregate; returns the others, which can follow it in a batch.
    async fn resolve_first_of_each(
        &mut self,
        events: Vec<JournalEvent>,
        ids: MessageIds,
    ) -> Result<Vec<JournalEvent>, LaneError> {
        let mut resolved = HashSet::new();
        let mut later = Vec::new();
        let mut rejection = None;
        for event in events {
            if !resolved.insert(event.key.clone()) {
                later.push(event);
                continue;
            }
            let (connections, loss) = (&mut self.connections, &mut self.loss);
            match self.publisher.resolve(connections, loss, &event, ids, self.throttle.batch_bytes).await? {
                ResolveOutcome::Stored(stored) => self.acknowledge(&event, stored),
                ResolveOutcome::Rejected(reason) => {
                    self.publisher.record_rejection(event.key.clone());
                    rejection = Some(reason.clone());
                    self.deferred.defer(event.key, reason, false);
                }
                ResolveOutcome::Deferred { reason, diverged } => self.deferred.defer(event.key, reason, diverged),
            }
        }
        match rejection {
            Some(reason) if self.publisher.rejects_everything() => Err(LaneError::Unavailable(reason)),
            Some(_) | None => Ok(later),
        }
    }

    /// Records that the stream holds an event.
    fn acknowledge(&mut self, event: &JournalEvent, stored: StoredEvent) {
        self.deferred.resume(&event.key);
        self.watermarks.acknowledge(event, stored);
    }

    /// Deletes the acknowledged events from the outbox and moves the watermarks.
    async fn delete_acknowledged(&mut self) -> Result<(), LaneError> {
        if self.watermarks.none_acknowledged() {
            return Ok(());
        }
        self.loss.check(&mut self.connections).await?;
        for (shard, watermark) in self.watermarks.delete_acknowledged(&mut self.connections).await? {
            self.settings.status.owns(shard, Some(watermark));
        }
        Ok(())
    }
}
