//! command-api, query-api and projector as they really run: processes that can be stopped, killed, and started again.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fmt};

use anyhow::Context as _;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::place::built;
use crate::process::{Process, until_alive};
use crate::until::until;

/// A tool of the command line has done its work by then.
const TOOL_WITHIN: Duration = Duration::from_mins(1);
/// How much of a log is shown when a scenario failed, in bytes.
const SHOWN: usize = 6000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    CommandApi,
    QueryApi,
    Projector,
}

impl Name {
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector => "projector",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::CommandApi | Self::QueryApi => "serve",
            Self::Projector => "run",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.binary())
    }
}

/// What a program is told; nothing else of the test run's environment reaches it.
pub type Environment = Vec<(String, String)>;

/// One program of a scenario, through all its lives.
#[derive(Debug)]
pub struct Program {
    name: Name,
    environment: Environment,
    log: PathBuf,
    life: Mutex<Option<Life>>,
    http: Client,
}

#[derive(Debug, Clone)]
struct Life {
    process: Arc<Process>,
    http: Option<SocketAddr>,
    ops: SocketAddr,
}

impl Program {
    pub(crate) fn new(name: Name, nth: usize, folder: &Path, environment: Environment) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}-{nth}.log"));
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { name, environment, log, life: Mutex::default(), http })
    }

    /// Starts it, and returns when it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.launch().await?;
        self.becomes_ready().await
    }

    /// Starts it, and returns when it listens: it may still wait for what it needs.
    pub async fn launch(&self) -> anyhow::Result<()> {
        let written_before = fs::metadata(&self.log).map_or(0, |log| log.len());
        let mut command = command(self.name, &self.environment)?;
        let process = Process::spawn(self.name.binary(), command.arg(self.name.role()), &self.log)?;
        let look = async || self.listeners(written_before);
        let started = until_alive(&process, format_args!("{} to say where it listens", self.name), look).await;
        let (http, ops) = started.with_context(|| self.last_words())?;
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(Life { process: Arc::new(process), http, ops });
        Ok(())
    }

    pub async fn becomes_ready(&self) -> anyhow::Result<()> {
        until(format_args!("{} to be ready", self.name), async || {
            let (status, body) = self.ops("/ready").await?;
            anyhow::ensure!(status == StatusCode::OK, "{status} {body}");
            Ok(true)
        })
        .await
        .with_context(|| self.last_words())
    }

    /// Where the log says that it listens: on its public port, if it has one, and on the operations port.
    fn listeners(&self, from: u64) -> anyhow::Result<Option<(Option<SocketAddr>, SocketAddr)>> {
        let mut log = fs::File::open(&self.log)?;
        log.seek(SeekFrom::Start(from))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        let address = |listener: &str| {
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let field = |line: &Value, name: &str| line[name].as_str().or(line["fields"][name].as_str()).map(str::to_owned);
            let line = lines.rfind(|line| field(line, "listener").as_deref() == Some(listener))?;
            field(&line, "addr")?.parse().ok()
        };
        let (http, ops) = (address("http"), address("ops"));
        let listens = self.name == Name::Projector || http.is_some();
        Ok(ops.filter(|_| listens).map(|ops| (http, ops)))
    }

    fn life(&self) -> anyhow::Result<Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).clone().with_context(|| format!("{} is not running", self.name))
    }

    /// The address of a route on its public port.
    pub fn url(&self, path: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}{path}", self.address()?))
    }

    /// Where it listens for its users.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.life()?.http.with_context(|| format!("{} has no public port", self.name))
    }

    /// Asks its operations port.
    pub async fn ops(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let response = self.http.get(format!("http://{}{path}", self.life()?.ops)).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// What it tells about itself.
    pub async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ops("/status").await?.1)?)
    }

    /// A series of its metrics, or the sum of those that carry all the given labels. `None` if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<Option<f64>> {
        let (_, text) = self.ops("/metrics").await?;
        let mut sum = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (family, with) = series.split_once('{').unwrap_or((series, "}"));
            let carries = |(label, wanted): &(&str, &str)| with.contains(&format!("{label}=\"{wanted}\""));
            if family == name && labels.iter().all(carries) {
                *sum.get_or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.life().is_ok_and(|life| matches!(life.process.ended(), Ok(None)))
    }

    /// Ends it in the middle of whatever it does (SIGKILL).
    pub fn kill(&self) -> anyhow::Result<()> {
        self.life()?.process.kill()?;
        self.bury();
        Ok(())
    }

    /// Stops its clock (SIGSTOP). Its connections, sessions and locks stay.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.life()?.process.pause()
    }

    /// Lets it go on, believing that no time has passed (SIGCONT).
    pub fn wake(&self) -> anyhow::Result<()> {
        self.life()?.process.wake()
    }

    /// Asks it to end (SIGTERM).
    pub fn ask_to_end(&self) -> anyhow::Result<()> {
        self.life()?.process.ask_to_end()
    }

    /// Waits until it has ended by itself.
    pub async fn end(&self) -> anyhow::Result<ExitStatus> {
        let status = self.life()?.process.end().await.with_context(|| self.last_words())?;
        self.bury();
        Ok(status)
    }

    /// Stops it as an orchestrator would, and expects it to end well.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.ask_to_end()?;
        let status = self.end().await?;
        anyhow::ensure!(status.success(), "{} ended with {status} after SIGTERM; {}", self.name, self.last_words());
        Ok(())
    }

    fn bury(&self) {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Runs one of its tools, such as `projector dead-letters list`, and waits until that is done.
    pub async fn tool(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut tool = tokio::process::Command::from(command(self.name, &self.environment)?);
        tool.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let what = || format!("{} {}", self.name, arguments.join(" "));
        tokio::time::timeout(TOOL_WITHIN, tool.output())
            .await
            .with_context(|| format!("{} did not end", what()))?
            .with_context(what)
    }

    /// Everything it has said, in all its lives.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said();
        let mut from = said.len().saturating_sub(SHOWN);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        format!("{} ends with:\n{}", self.log.display(), &said[from..])
    }
}

/// Runs a tool that must succeed, before there is a program to ask.
pub(crate) async fn tool(name: Name, environment: &Environment, arguments: &[&str]) -> anyhow::Result<()> {
    let mut tool = tokio::process::Command::from(command(name, environment)?);
    let run = tool.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let what = || format!("{name} {}", arguments.join(" "));
    let output =
        tokio::time::timeout(TOOL_WITHIN, run).await.with_context(|| format!("{} did not end", what()))?.with_context(what)?;
    let said = [output.stdout, output.stderr].concat();
    anyhow::ensure!(output.status.success(), "{} ended with {}: {}", what(), output.status, String::from_utf8_lossy(&said));
    Ok(())
}

fn command(name: Name, environment: &Environment) -> anyhow::Result<Command> {
    let mut command = Command::new(built(name.binary())?);
    command.env_clear().envs(env::vars().filter(|(variable, _)| variable == "PATH" || variable == "RUST_BACKTRACE"));
    command.envs(environment.iter().map(|(variable, value)| (variable, value)));
    Ok(command)
}
