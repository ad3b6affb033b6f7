//! `projector status`: how far each projection is.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{connection::State, jetstream::consumer::Info};
use serde::{Deserialize, Serialize};
use service::clock::Clock;
use tokio::time::{sleep, timeout};

use service::program::print_line;

use crate::{
    connections,
    feed::{FeedStatus, Phase},
    generations::{self, Generation},
    monitor,
    settings::{Output, StatusSettings},
};

/// The rate is what is answered within this time.
const RATE_OVER: Duration = Duration::from_secs(1);
/// A projector on this machine, or near it.
const OPS_ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const BROKER_CONNECTS_WITHIN: Duration = Duration::from_secs(5);
const BROKER_AGAIN: Duration = Duration::from_millis(50);

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    projection: String,
    generation: i32,
    serving: bool,
    lag_events: u64,
    lag_seconds: f64,
    /// Events answered in a second, by all processes.
    rate: f64,
    dead_letters: usize,
    /// Events that wait for another try; known only to the running process.
    retrying: Option<usize>,
    /// `None` if no running process could be asked.
    #[serde(flatten)]
    phase: Option<Phase>,
}

#[derive(Debug, Deserialize)]
struct OpsStatus {
    projections: Vec<FeedStatus>,
}

pub async fn show(settings: &StatusSettings) -> anyhow::Result<()> {
    let lines = lines(settings).await?;
    match settings.output {
        Output::Json => print_line(serde_json::to_string_pretty(&lines)?)?,
        Output::Table => print_line(table(&lines).trim_end())?,
    }
    Ok(())
}

async fn lines(settings: &StatusSettings) -> anyhow::Result<Vec<Line>> {
    let jetstream = connections::nats(&settings.nats).await?;
    let connected = async {
        while jetstream.client().connection_state() != State::Connected {
            sleep(BROKER_AGAIN).await;
        }
    };
    timeout(BROKER_CONNECTS_WITHIN, connected).await.context("the broker does not answer")?;
    let running = running(settings).await;
    let generations = generations(settings, running.as_deref()).await?;
    let letters = monitor::dead_letters(&jetstream).await.context("the dead letters cannot be counted")?;

    let mut before: HashMap<String, Info> = HashMap::new();
    for generation in &generations {
        before.insert(generation.durable.clone(), monitor::consumer_info(&jetstream, &generation.durable).await?);
    }
    sleep(RATE_OVER).await;
    let mut lines = Vec::new();
    for generation in generations {
        let info = monitor::consumer_info(&jetstream, &generation.durable).await?;
        let lag = monitor::lag(&jetstream, &info, Clock::System.now()).await?;
        let answered = |info: &Info| info.ack_floor.consumer_sequence;
        let moved = before.get(&generation.durable).map_or(0, |before| answered(&info).saturating_sub(answered(before)));
        let feed = running.as_ref().and_then(|feeds| {
            feeds.iter().find(|feed| feed.projection == generation.projection && feed.generation == generation.number)
        });
        lines.push(Line {
            lag_events: lag.events,
            lag_seconds: lag.seconds,
            rate: Duration::from_secs(moved).as_secs_f64() / RATE_OVER.as_secs_f64(),
            dead_letters: if generation.serving { letters.get(&generation.projection).copied().unwrap_or_default() } else { 0 },
            retrying: feed.map(|feed| feed.retrying),
            phase: feed.map(|feed| feed.phase.clone()),
            projection: generation.projection,
            generation: generation.number,
            serving: generation.serving,
        });
    }
    Ok(lines)
}

/// As the database has them; while it is away, as the running process knows them.
async fn generations(settings: &StatusSettings, running: Option<&[FeedStatus]>) -> anyhow::Result<Vec<Generation>> {
    let held = generations::fed(&connections::database(&settings.database)?).await;
    let known = |feed: &FeedStatus| Generation {
        projection: feed.projection.clone(),
        number: feed.generation,
        serving: feed.serving,
        durable: feed.durable.clone(),
    };
    match (held, running) {
        (Err(_), Some(feeds)) => Ok(feeds.iter().map(known).collect()),
        (held, _) => held.context("the generations cannot be read (`command-api migrate` makes them)"),
    }
}

/// What the running process says; `None` if none answers.
async fn running(settings: &StatusSettings) -> Option<Vec<FeedStatus>> {
    let client = reqwest::Client::builder().no_proxy().timeout(OPS_ANSWERS_WITHIN).build().ok()?;
    let url = match &settings.ops {
        Some(url) => url.join("status").ok()?,
        None => format!("http://{}/status", reachable(settings.own.ops_addr)).parse().ok()?,
    };
    let status: OpsStatus = client.get(url).send().await.ok()?.json().await.ok()?;
    Some(status.projections)
}

/// Listening on all addresses is not an address to connect to.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    addr
}

fn table(lines: &[Line]) -> String {
    let head = format!(
        "{:<18} {:>3}  {:<8} {:>9} {:>9} {:>9} {:>8} {:>12}  {}\n",
        "PROJECTION", "GEN", "ROLE", "LAG", "SECONDS", "EVENTS/S", "RETRYING", "DEAD LETTERS", "STATE"
    );
    std::iter::once(head).chain(lines.iter().map(row)).collect()
}

fn row(line: &Line) -> String {
    let state = match &line.phase {
        None => "unknown (no projector answers at its operations port)".to_owned(),
        Some(Phase::Consuming) => "consuming".to_owned(),
        Some(Phase::Waiting { why }) => format!("waiting: {why}"),
        Some(Phase::Holding { why, since }) => format!("held since {}: {why}", since.format("%H:%M:%S")),
    };
    let role = if line.serving { "serving" } else { "standby" };
    let retrying = line.retrying.map_or_else(|| "-".to_owned(), |retrying| retrying.to_string());
    format!(
        "{:<18} {:>3}  {role:<8} {:>9} {:>9.1} {:>9.0} {retrying:>8} {:>12}  {state}\n",
        line.projection, line.generation, line.lag_events, line.lag_seconds, line.rate, line.dead_letters
    )
}
