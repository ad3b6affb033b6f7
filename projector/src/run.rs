//! Runs the program: feeds each generation of each projection that is not retired. Which those are is read again each second, so that
//! a rebuild or a rollback reaches every projector that runs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::{connection::State, jetstream};
use prometheus_client::registry::Registry;
use service::{
    clock::Clock,
    metrics::{Pool, register_build_info, register_pools},
    ops::Ops,
    program::Program,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use views::generations::ServingGenerations;

use crate::{
    connections::{self, Dependencies, StoreClients},
    generations::{self, Generation},
    metrics::Metrics,
    monitor, projections,
    running::{RunningGeneration, RunningGenerations},
    settings::RunSettings,
};

/// How often the generations are read (PROTOCOL G1).
const GENERATIONS_EVERY: Duration = Duration::from_secs(1);
/// How often the broker is looked for at the start.
const BROKER_AGAIN: Duration = Duration::from_millis(250);
/// Timeout of the last acks: a broker that does not answer must not delay the stop.
const LAST_ACKS_TIMEOUT: Duration = Duration::from_secs(2);

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
    let metrics = Metrics::register(&mut registry, projections::ALL.iter().map(|projection| projection.name));

    let stores = StoreClients::open(stores, db)?;
    let dependencies = Dependencies { jetstream, stores, metrics, clock: Clock::System, backoff: settings.backoff };
    let generations = RunningGenerations::default();
    let (ready, status) = (generations.clone(), generations.clone());
    let ready_dependencies = dependencies.clone();
    let ops = Ops::new(
        registry,
        &program.lifecycle,
        move || std::future::ready(monitor::readiness(&ready, &ready_dependencies)),
        move || {
            let status = status.clone();
            async move { status.to_json() }
        },
    );
    program.open_ops(settings.ops.ops_addr, ops).await?;

    let (serving, stop) = (watch::Sender::default(), program.stop.clone());
    program.spawn("monitor", monitor::watch(generations.clone(), dependencies.clone(), stop.clone()));
    program.spawn(
        "serving generations",
        generations::publish_serving(dependencies.stores.redis.clone(), serving.subscribe(), stop.clone()),
    );
    let lifecycle = program.lifecycle.clone();
    program.spawn("feeds", feed_all(dependencies, generations, serving, stop, move || lifecycle.started()));
    program.until_stopped(std::future::ready(())).await
}

/// Feeds all generations until stopped.
async fn feed_all(
    dependencies: Dependencies,
    shown: RunningGenerations,
    serving: watch::Sender<ServingGenerations>,
    stop: CancellationToken,
    started: impl FnOnce(),
) -> anyhow::Result<()> {
    if !wait_for_broker(&dependencies.jetstream, &stop).await {
        return Ok(());
    }
    connections::check_broker(&dependencies.jetstream)?;
    warn_of_eviction(&dependencies).await;

    let mut feeds = Feeds { dependencies, shown, running: HashMap::new() };
    let mut ticks = interval(GENERATIONS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut database_unavailable = false;
    let mut started = Some(started);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Some((name, _)) = feeds.running.iter().find(|(_, feed)| feed.task.is_finished()) {
            anyhow::bail!("the feed of {name} ended on its own");
        }
        let Some(fed) = stop.run_until_cancelled(generations::not_retired(&feeds.dependencies.stores.db)).await else { break };
        match fed {
            Ok(generations) => {
                if std::mem::take(&mut database_unavailable) {
                    info!("The generations can be read again");
                }
                publish_if_changed(&serving, generations::serving(&generations));
                feeds.sync_feeds(&generations).await?;
                if let Some(started) = started.take_if(|_| !generations.is_empty()) {
                    started();
                }
            }
            Err(error) if !std::mem::replace(&mut database_unavailable, true) => {
                let error = format!("{error:#}");
                warn!(error, "The generations cannot be read; the known ones are fed on: {error}");
            }
            Err(_) => {}
        }
    }
    let jetstream = feeds.dependencies.jetstream.clone();
    feeds.stop_all().await?;
    // The last acks are still in the client. If they are lost there, the events are redelivered, which changes nothing.
    match timeout(LAST_ACKS_TIMEOUT, jetstream.client().flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = %error, "The last acks did not reach the broker: {error}"),
        Err(_) => warn!("The last acks did not reach the broker, which does not answer"),
    }
    Ok(())
}

fn publish_if_changed(serving: &watch::Sender<ServingGenerations>, current: ServingGenerations) {
    serving.send_if_modified(|published| {
        let changed = *published != current;
        *published = current;
        changed
    });
}

/// Returns `false` if the program stops meanwhile.
async fn wait_for_broker(jetstream: &jetstream::Context, stop: &CancellationToken) -> bool {
    let client = jetstream.client();
    let mut logged = false;
    while client.connection_state() != State::Connected {
        if !std::mem::replace(&mut logged, true) {
            info!("Waiting for the broker");
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(BROKER_AGAIN) => {}
        }
    }
    true
}

/// If Redis does not answer yet, or does not show its policy, there is no warning.
async fn warn_of_eviction(dependencies: &Dependencies) {
    if let Ok(policy) = connections::eviction_policy(&dependencies.stores.redis).await
        && connections::evicts_tombstones_first(&policy)
    {
        warn!(
            policy,
            "Redis maxmemory-policy {policy} evicts keys that have a TTL first, which includes tombstones; use allkeys-lru or noeviction"
        );
    }
}

/// The feeds of this process, by the names of their generations.
struct Feeds {
    dependencies: Dependencies,
    shown: RunningGenerations,
    running: HashMap<String, Feed>,
}

/// The task that feeds one generation.
struct Feed {
    generation: Arc<RunningGeneration>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Feeds {
    /// Starts the feeds of new generations, ends those of retired ones, and notes which generation serves.
    async fn sync_feeds(&mut self, generations: &[Generation]) -> anyhow::Result<()> {
        for generation in generations {
            match self.running.get(generation.name()) {
                Some(feed) => feed.generation.set_generation_state(generation.state),
                None => self.start(generation),
            }
        }
        let is_fed = |name: &String| generations.iter().any(|generation| generation.name() == name);
        let retired: Vec<String> = self.running.keys().filter(|name| !is_fed(name)).cloned().collect();
        for name in retired {
            let Some(feed) = self.running.remove(&name) else { continue };
            let Generation { projection, number, .. } = feed.generation.generation();
            info!(projection.name = projection, generation = number, "Generation {number} of {projection} is retired");
            feed.stop.cancel();
            feed.task.await.context("a feed panicked")??;
            self.shown.remove(&feed.generation);
            feed.generation.metrics.remove();
        }
        Ok(())
    }

    /// Starts the feed of a generation. One of a projection that this program does not know is fed by another version of it.
    fn start(&mut self, generation: &Generation) {
        let Some(projection) = projections::named(&generation.projection) else { return };
        let metrics = self.dependencies.metrics.of(generation);
        let running = Arc::new(RunningGeneration::new(generation.clone(), metrics));
        let stop = CancellationToken::new();
        let task = (projection.feed)(self.dependencies.clone(), Arc::clone(&running), stop.clone());
        self.shown.add(Arc::clone(&running));
        self.running.insert(generation.name().to_owned(), Feed { generation: running, stop, task });
    }

    async fn stop_all(self) -> anyhow::Result<()> {
        for feed in self.running.values() {
            feed.stop.cancel();
        }
        for feed in self.running.into_values() {
            feed.task.await.context("a feed panicked")??;
        }
        Ok(())
    }
}
