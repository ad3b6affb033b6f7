//! `projector status`: shows lag, rate, state and dead letters of each generation.

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
    generations::{self, Generation, GenerationState},
    monitor,
    running::{FeedState, GenerationReport},
    settings::{Output, StatusSettings},
};

/// The time over which the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(1);
/// Timeout of a projector's operations port, on this machine or near it.
const OPS_TIMEOUT: Duration = Duration::from_secs(3);
const BROKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BROKER_AGAIN: Duration = Duration::from_millis(50);

/// One line of the table.
#[derive(Debug, Serialize)]
struct StatusLine {
    projection: String,
    generation: i32,
    serving: bool,
    role: String,
    lag_events: u64,
    lag_seconds: f64,
    /// Events acknowledged in a second, by all processes.
    rate: f64,
    dead_letters: usize,
    /// Events that wait for another try; known only to the running process.
    retrying: Option<usize>,
    /// `None` if no running process answered.
    #[serde(flatten)]
    state: Option<FeedState>,
}

#[derive(Debug, Deserialize)]
struct OpsStatus {
    projections: Vec<GenerationReport>,
}

pub async fn show(settings: &StatusSettings) -> anyhow::Result<()> {
    let lines = lines(settings).await?;
    match settings.output {
        Output::Json => print_line(serde_json::to_string_pretty(&lines)?)?,
        Output::Table => print_line(table(&lines).trim_end())?,
    }
    Ok(())
}

async fn lines(settings: &StatusSettings) -> anyhow::Result<Vec<StatusLine>> {
    let jetstream = connections::nats(&settings.nats).await?;
    let connected = async {
        while jetstream.client().connection_state() != State::Connected {
            sleep(BROKER_AGAIN).await;
        }
    };
    timeout(BROKER_CONNECT_TIMEOUT, connected).await.context("the broker does not answer")?;
    let running = running_generations(settings).await;
    let generations = generations(settings, running.as_deref()).await?;
    let dead_letters = monitor::dead_letters(&jetstream).await.context("the dead letters cannot be counted")?;

    let mut before: HashMap<String, Info> = HashMap::new();
    for generation in &generations {
        before.insert(generation.name().to_owned(), monitor::consumer_info(&jetstream, generation.name()).await?);
    }
    sleep(RATE_OVER).await;
    let mut lines = Vec::new();
    for generation in generations {
        let info = monitor::consumer_info(&jetstream, generation.name()).await?;
        let lag = monitor::lag(&jetstream, &info, Clock::System.now()).await?;
        let acknowledged = |info: &Info| info.ack_floor.consumer_sequence;
        let moved = before.get(generation.name()).map_or(0, |before| acknowledged(&info).saturating_sub(acknowledged(before)));
        let report = running.as_ref().and_then(|reports| {
            reports.iter().find(|report| report.projection == generation.projection && report.generation == generation.number)
        });
        lines.push(StatusLine {
            lag_events: lag.events,
            lag_seconds: lag.seconds,
            rate: Duration::from_secs(moved).as_secs_f64() / RATE_OVER.as_secs_f64(),
            dead_letters: if generation.is_serving() {
                dead_letters.get(&generation.projection).copied().unwrap_or_default()
            } else {
                0
            },
            retrying: report.map(|report| report.retrying),
            state: report.map(|report| report.state.clone()),
            serving: generation.is_serving(),
            role: generation.state.as_str().to_owned(),
            projection: generation.projection,
            generation: generation.number,
        });
    }
    Ok(lines)
}

/// Reads the generations from the database; while it is unavailable, takes those that the running process knows.
async fn generations(settings: &StatusSettings, running: Option<&[GenerationReport]>) -> anyhow::Result<Vec<Generation>> {
    let read = generations::not_retired(&connections::database(&settings.database)?).await;
    let known = |report: &GenerationReport| {
        let state = GenerationState::from_name(&report.role).with_context(|| format!("{} is no role", report.role))?;
        Ok(Generation::new(&report.projection, report.generation, state))
    };
    match (read, running) {
        (Err(_), Some(reports)) => reports.iter().map(known).collect(),
        (read, _) => read.context("the generations cannot be read (`command-api migrate` makes them)"),
    }
}

/// Asks the running process; `None` if none answers.
async fn running_generations(settings: &StatusSettings) -> Option<Vec<GenerationReport>> {
    let client = reqwest::Client::builder().no_proxy().timeout(OPS_TIMEOUT).build().ok()?;
    let url = match &settings.ops {
        Some(url) => url.join("status").ok()?,
        None => format!("http://{}/status", reachable(settings.own.ops_addr)).parse().ok()?,
    };
    let status: OpsStatus = client.get(url).send().await.ok()?.json().await.ok()?;
    Some(status.projections)
}

/// Replaces the address that stands for all addresses, to which nobody can connect, with the local one.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    addr
}

fn table(lines: &[StatusLine]) -> String {
    let head = format!(
        "{:<18} {:>3}  {:<8} {:>9} {:>9} {:>9} {:>8} {:>12}  {}\n",
        "PROJECTION", "GEN", "ROLE", "LAG", "SECONDS", "EVENTS/S", "RETRYING", "DEAD LETTERS", "STATE"
    );
    std::iter::once(head).chain(lines.iter().map(row)).collect()
}

fn row(line: &StatusLine) -> String {
    let state = match &line.state {
        None => "unknown (no projector answers at its operations port)".to_owned(),
        Some(FeedState::Consuming) => "consuming".to_owned(),
        Some(FeedState::Waiting { why }) => format!("waiting: {why}"),
        Some(FeedState::Holding { why, since }) => format!("held since {}: {why}", since.format("%H:%M:%S")),
        Some(FeedState::Paused) => "paused by an operator".to_owned(),
    };
    let retrying = line.retrying.map_or_else(|| "-".to_owned(), |retrying| retrying.to_string());
    format!(
        "{:<18} {:>3}  {:<8} {:>9} {:>9.1} {:>9.0} {retrying:>8} {:>12}  {state}\n",
        line.projection, line.generation, line.role, line.lag_events, line.lag_seconds, line.rate, line.dead_letters
    )
}
