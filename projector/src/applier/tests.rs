//! Appliers of both kinds of projections, driven by a source in memory. No server is running: a request to one would fail.

use std::{collections::BTreeMap, sync::Mutex};

use events::{
    Aggregate as _, AggregateKey, AggregateKind, Event, EventId, Meta, NewEvent, Recorded, Stock, StockChange, envelope::header,
};
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::*;
use crate::{
    connections::StoreClients,
    generations::{Generation, GenerationState},
    metrics::Metrics,
    projection::{EventResult, SystemicFailure, WriteLimits},
};

const LIMITS: WriteLimits = WriteLimits { events: 10, bytes: 1024, in_flight: 1, timeout: Duration::from_secs(1) };

/// Remembers every event once, by its id, in the order in which they came.
#[derive(Debug, Default)]
struct MovementLedger(Mutex<Vec<(EventId, u64)>>);

impl Projection for MovementLedger {
    const NAME: &'static str = "movement_ledger";
    const KIND: ProjectionKind = ProjectionKind::Ledger;
    const AGGREGATES: &'static [AggregateKind] = &[Stock::KIND];
    const LIMITS: WriteLimits = LIMITS;

    type Write = (EventId, u64);

    fn open(_: &StoreClients, _: &Generation) -> Self {
        Self::default()
    }

    fn render(&self, event: &Event) -> anyhow::Result<(EventId, u64)> {
        Ok((event.meta.id, event.meta.version))
    }

    async fn store(&self, entries: Vec<(EventId, u64)>) -> Result<Vec<EventResult>, SystemicFailure> {
        let mut stored = self.0.lock().unwrap();
        let mut insert = |entry: (EventId, u64)| {
            let known = stored.iter().any(|(id, _)| *id == entry.0);
            if !known {
                stored.push(entry);
            }
            Ok(if known { WriteEffect::Superseded } else { WriteEffect::Applied })
        };
        Ok(entries.into_iter().map(&mut insert).collect())
    }
}

/// Remembers the newest version of each aggregate, and each version that was to be written.
#[derive(Debug, Default)]
struct NewestVersion(Mutex<(BTreeMap<AggregateKey, u64>, Vec<u64>)>);

impl Projection for NewestVersion {
    const NAME: &'static str = "newest_version";
    const AGGREGATES: &'static [AggregateKind] = &[Stock::KIND];
    const LIMITS: WriteLimits = LIMITS;

    type Write = (AggregateKey, u64);

    fn open(_: &StoreClients, _: &Generation) -> Self {
        Self::default()
    }

    fn render(&self, event: &Event) -> anyhow::Result<(AggregateKey, u64)> {
        Ok((event.meta.key, event.meta.version))
    }

    async fn store(&self, writes: Vec<(AggregateKey, u64)>) -> Result<Vec<EventResult>, SystemicFailure> {
        let (newest, written) = &mut *self.0.lock().unwrap();
        let mut write = |(key, version)| {
            written.push(version);
            let stored = newest.entry(key).or_default();
            let applied = version > *stored;
            *stored = version.max(*stored);
            Ok(if applied { WriteEffect::Applied } else { WriteEffect::Superseded })
        };
        Ok(writes.into_iter().map(&mut write).collect())
    }
}

/// An applier with nothing behind it.
async fn applier<P: Projection>() -> Applier<P> {
    let nowhere = "127.0.0.1:1";
    let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(nowhere).await.unwrap();
    let generation = Generation::new(P::NAME, 1, GenerationState::Serving);
    let metrics = Metrics::register(&mut Registry::default(), []);
    let running = Arc::new(RunningGeneration::new(generation.clone(), metrics.of(&generation)));
    let dependencies = Dependencies {
        jetstream: async_nats::jetstream::new(client),
        stores: StoreClients {
            db: PgPool::connect_lazy(&format!("postgres://{nowhere}/none")).unwrap(),
            redis: service::redis::Redis::new(&format!("redis://{nowhere}"), LIMITS.timeout, LIMITS.timeout).unwrap(),
            opensearch: opensearch::OpenSearch::default(),
            search_alias: "listings".to_owned(),
        },
        metrics,
        clock: Clock::System,
        backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(1), attempts: 3 },
    };
    Applier::new(&dependencies, running)
}

/// Hands over the events as one batch, and does what every source does: it asks for the next step until nothing is left.
async fn feed<P: Projection>(applier: &mut Applier<P>, events: impl IntoIterator<Item = SourceEvent>) -> Judgement {
    for event in events {
        applier.accept(event);
    }
    let mut done = Judgement::default();
    loop {
        applier.start_batches(false);
        let Some(batch) = applier.next_finished().await else { return done };
        done.merge(applier.judge(batch.unwrap()).await.unwrap());
    }
}

fn recorded(variant: Uuid, version: u64) -> Recorded {
    let meta = Meta {
        id: EventId::new(),
        key: AggregateKey::stock(variant),
        version,
        time: "2026-11-21T09:30:00Z".parse().unwrap(),
        caused_by: None,
        correlation_id: None,
        trace_parent: None,
    };
    NewEvent::<Stock> { meta, change: &StockChange::Removed {}, state: None }.encode().unwrap()
}

#[tokio::test]
async fn a_ledger_gets_every_version_once_and_in_order() {
    let mut applier = applier::<MovementLedger>().await;
    let variant = Uuid::now_v7();
    let [first, second] = [recorded(variant, 1), recorded(variant, 2)];
    let of = |sequence, recorded: &Recorded| SourceEvent::of(sequence, recorded.clone());

    // The later version comes first, and one of them twice, in one batch.
    let done = feed(&mut applier, [of(8, &second), of(7, &first), of(9, &second)]).await;
    assert_eq!(done, Judgement { settled: vec![7, 8, 9], ..Judgement::default() });
    let due = vec![(first.id, 1), (second.id, 2)];
    assert_eq!(*applier.projection.0.lock().unwrap(), due);

    // A redelivery, or a replay, changes nothing.
    let done = feed(&mut applier, [of(17, &first), of(18, &second)]).await;
    assert_eq!(done.settled, [17, 18]);
    assert_eq!(*applier.projection.0.lock().unwrap(), due);
}

#[tokio::test]
async fn a_state_projection_gets_the_newest_version_only() {
    let mut applier = applier::<NewestVersion>().await;
    let variant = Uuid::now_v7();
    let events = [1, 3, 2].map(|version| SourceEvent::of(version, recorded(variant, version)));
    let done = feed(&mut applier, events).await;
    assert_eq!(done.settled, [3, 2, 1]);
    assert_eq!(applier.projection.0.lock().unwrap().1, [3]);
}

#[tokio::test]
async fn an_event_of_a_newer_program_is_left_to_it_and_the_others_are_applied() {
    let mut applier = applier::<NewestVersion>().await;
    let (variant, other) = (Uuid::now_v7(), Uuid::now_v7());
    let mut newer = recorded(variant, 5);
    newer.headers.insert(header::TYPE.to_owned(), "stock.removed.v9".to_owned());
    for round in 1..=4 {
        let events = [recorded(variant, 4), newer.clone(), recorded(other, round)].into_iter().zip([1, 2, round + 2]);
        let done = feed(&mut applier, events.map(|(recorded, sequence)| SourceEvent::of(sequence, recorded))).await;
        let mut settled = done.settled;
        settled.sort_unstable();
        assert_eq!((settled, done.hold), (vec![1, round + 2], None));
        assert_eq!(done.newer.iter().map(|newer| newer.sequence).collect::<Vec<_>>(), [2]);
        let why =
            format!("event {}: it has type stock.removed.v9, which a newer program wrote; upgrade this projector", newer.id);
        assert_eq!(done.newer[0].why, why);
    }
    let newest = &applier.projection.0.lock().unwrap().0;
    assert_eq!(newest.values().copied().collect::<Vec<_>>(), [4, 4], "the older event takes the place of the newer one");
}
