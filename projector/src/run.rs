//! Runs the feeds: one for each generation of each projection that is not retired. Which those are is read again each second,
//! so that a rebuild or a rollback reaches every projector that runs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::connection::State;
use opensearch::OpenSearch;
use prometheus_client::registry::Registry;
use service::{
    clock::Clock,
    metrics::{Pool, register_build_info, register_pools},
    ops::Ops,
    program::Program,
    redis::Redis,
};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    connections,
    consumer::{Consumer, Surroundings},
    feed::Feed,
    generations::{self, Generation},
    metrics::Metrics,
    monitor::{self, Feeds},
    projection::Projection,
    projections::{ListingCatalog, ListingPage, ListingSearch, StockLevels},
    settings::RunSettings,
};

/// PROTOCOL G1.
const GENERATIONS_EVERY: Duration = Duration::from_secs(1);
/// The broker is looked for this often at the start.
const BROKER_AGAIN: Duration = Duration::from_millis(250);
/// A broker that is away must not hold up the stop.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What feeds are made of.
#[derive(Clone)]
pub struct Stores {
    pub around: Surroundings,
    pub redis: Redis,
    pub opensearch: OpenSearch,
    pub alias: String,
}

/// Telemetry → dependencies → run → drain.
pub async fn run(settings: RunSettings) -> anyhow::Result<()> {
    let mut program = Program::start("projector", &settings.log)?;
    let stores = &settings.stores;
    let db = connections::database(&stores.database)?;
    let jetstream = connections::nats(&stores.nats).await?;

    let mut registry = Registry::with_prefix("listings");
    register_build_info(&mut registry, "projector", env!("CARGO_PKG_VERSION"));
    let pools = (db.clone(), db.clone());
    register_pools(
        &mut registry,
        vec![Pool::new("main", move || pools.0.size().into(), move || pools.1.num_idle().try_into().unwrap_or(i64::MAX))],
    );
    let metrics = Metrics::register(&mut registry);

    let around = Surroundings { jetstream, db, metrics, clock: Clock::System, backoff: settings.backoff };
    let feeds = Feeds::default();
    let (ready, status) = (feeds.clone(), feeds.clone());
    let ready_around = around.clone();
    let ops = Ops::new(
        registry,
        &program.lifecycle,
        move || std::future::ready(monitor::readiness(&ready, &ready_around)),
        move || {
            let status = status.clone();
            async move { status.to_json() }
        },
    );
    program.open_ops(settings.ops.ops_addr, ops).await?;

    let stores = Stores {
        redis: connections::redis(&stores.redis)?,
        opensearch: connections::opensearch(&stores.opensearch)?,
        alias: stores.opensearch_index.clone(),
        around: around.clone(),
    };
    program.spawn("monitor", monitor::watch(feeds.clone(), around, program.stop.clone()));
    let lifecycle = program.lifecycle.clone();
    program.spawn("feeds", feed_all(stores, feeds, program.stop.clone(), move || lifecycle.started()));
    program.until_stopped(std::future::ready(())).await
}

async fn feed_all(stores: Stores, feeds: Feeds, stop: CancellationToken, started: impl FnOnce()) -> anyhow::Result<()> {
    if !wait_for_broker(&stores, &stop).await {
        return Ok(());
    }
    connections::check_broker(&stores.around.jetstream)?;
    warn_of_eviction(&stores).await;

    let mut running: HashMap<(String, i32), Running> = HashMap::new();
    let mut ticks = interval(GENERATIONS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut database_away = false;
    let mut started = Some(started);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Some(((projection, _), _)) = running.iter().find(|(_, running)| running.task.is_finished()) {
            anyhow::bail!("the feed of {projection} ended on its own");
        }
        let Some(fed) = stop.run_until_cancelled(generations::fed(&stores.around.db)).await else { break };
        match fed {
            Ok(generations) => {
                if std::mem::take(&mut database_away) {
                    info!("The generations can be read again");
                }
                follow(&stores, &feeds, &mut running, &generations).await?;
                if let Some(started) = started.take_if(|_| !generations.is_empty()) {
                    started();
                }
            }
            Err(error) if !std::mem::replace(&mut database_away, true) => {
                let error = format!("{error:#}");
                warn!(error, "The generations cannot be read; those known are fed on: {error}");
            }
            Err(_) => {}
        }
    }
    for running in running.values() {
        running.stop.cancel();
    }
    for (_, running) in running {
        running.task.await.context("a feed panicked")??;
    }
    // What was answered last is still in the client. If it is lost there, it comes again, and changes nothing.
    match timeout(LAST_ANSWERS_WITHIN, stores.around.jetstream.client().flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = %error, "The last answers did not reach the broker: {error}"),
        Err(_) => warn!("The last answers did not reach the broker, which is away"),
    }
    Ok(())
}

/// `false` if told to stop meanwhile.
async fn wait_for_broker(stores: &Stores, stop: &CancellationToken) -> bool {
    let client = stores.around.jetstream.client();
    let mut told = false;
    while client.connection_state() != State::Connected {
        if !std::mem::replace(&mut told, true) {
            info!("Waiting for the broker");
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(BROKER_AGAIN) => {}
        }
    }
    true
}

/// Redis may not be there yet, or not tell; then nobody is warned.
async fn warn_of_eviction(stores: &Stores) {
    if let Ok(policy) = connections::eviction_policy(&stores.redis).await
        && connections::evicts_tombstones_first(&policy)
    {
        warn!(policy, "Redis evicts with {policy}, which removes the tombstones first; use allkeys-lru or noeviction");
    }
}

/// A feed, and how it is ended.
pub struct Running {
    feed: Arc<Feed>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Feeds a generation. One of a projection that this program does not know is fed by another version of it.
fn start(stores: &Stores, generation: &Generation) -> Option<Running> {
    let Stores { redis, opensearch, alias, around } = stores.clone();
    let number = generation.number;
    Some(match generation.projection.as_str() {
        ListingSearch::NAME => feed(around, generation, ListingSearch::new(opensearch, &alias, number)),
        ListingPage::NAME => feed(around, generation, ListingPage::new(redis, number)),
        ListingCatalog::NAME => feed(around.clone(), generation, ListingCatalog::new(around.db, number)),
        StockLevels::NAME => feed(around.clone(), generation, StockLevels::new(around.db, number)),
        _ => return None,
    })
}

/// Starts what is new, ends what is retired, and notes which generation serves.
async fn follow(
    stores: &Stores,
    feeds: &Feeds,
    running: &mut HashMap<(String, i32), Running>,
    generations: &[Generation],
) -> anyhow::Result<()> {
    let key = |generation: &Generation| (generation.projection.clone(), generation.number);
    for generation in generations {
        if let Some(running) = running.get(&key(generation)) {
            running.feed.set_serving(generation.serving);
        } else if let Some(started) = start(stores, generation) {
            feeds.add(Arc::clone(&started.feed));
            running.insert(key(generation), started);
        }
    }
    let retired: Vec<_> =
        running.keys().filter(|held| !generations.iter().any(|generation| key(generation) == **held)).cloned().collect();
    for key in retired {
        if let Some(ended) = running.remove(&key) {
            info!(projection.name = key.0, generation = key.1, "Generation {} of {} is retired", key.1, key.0);
            ended.stop.cancel();
            ended.task.await.context("a feed panicked")??;
            feeds.remove(&ended.feed);
        }
    }
    Ok(())
}

/// Starts the feed of one generation.
pub fn feed<P: Projection>(around: Surroundings, generation: &Generation, projection: P) -> Running {
    let feed = Arc::new(Feed::new(P::NAME, generation));
    let stop = CancellationToken::new();
    let consumer = Consumer::new(projection, around, Arc::clone(&feed));
    Running { feed, stop: stop.clone(), task: tokio::spawn(consumer.run(stop)) }
}
