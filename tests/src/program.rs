//! command-api, query-api and projector as processes that a scenario can stop, kill, pause and start again.

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

/// Timeout of a subcommand that runs and ends, such as `migrate`.
const TOOL_TIMEOUT: Duration = Duration::from_mins(1);
/// How much of the end of a log is shown when a scenario fails, in bytes.
const LOG_TAIL_BYTES: usize = 6000;

/// Which of the three programs.
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

/// The environment variables of a program. It inherits only `PATH` and `RUST_BACKTRACE` from the test run.
pub type Environment = Vec<(String, String)>;

/// One instance of a program in a scenario, which may be stopped and started again as a new process.
#[derive(Debug)]
pub struct Program {
    name: Name,
    environment: Environment,
    log: PathBuf,
    running: Mutex<Option<RunningProcess>>,
    http: Client,
}

/// The current process of a program, and the addresses that it listens on.
#[derive(Debug, Clone)]
struct RunningProcess {
    process: Arc<Process>,
    http: Option<SocketAddr>,
    ops: SocketAddr,
}

impl Program {
    pub(crate) fn new(name: Name, nth: usize, folder: &Path, environment: Environment) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}-{nth}.log"));
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { name, environment, log, running: Mutex::default(), http })
    }

    /// Starts the program and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.launch().await?;
        self.becomes_ready().await
    }

    /// Starts the program and waits until it listens. It may not be ready yet, for instance because a dependency is down.
    pub async fn launch(&self) -> anyhow::Result<()> {
        let written_before = fs::metadata(&self.log).map_or(0, |log| log.len());
        let mut command = command(self.name, &self.environment)?;
        let process = Process::spawn(self.name.binary(), command.arg(self.name.role()), &self.log)?;
        let look = async || self.listeners(written_before);
        let started = until_alive(&process, format_args!("{} to log its listening addresses", self.name), look).await;
        let (http, ops) = started.with_context(|| self.last_words())?;
        let running = RunningProcess { process: Arc::new(process), http, ops };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// Waits until `/ready` answers 200.
    pub async fn becomes_ready(&self) -> anyhow::Result<()> {
        until(format_args!("{} to be ready", self.name), async || {
            let (status, body) = self.ops("/ready").await?;
            anyhow::ensure!(status == StatusCode::OK, "{status} {body}");
            Ok(true)
        })
        .await
        .with_context(|| self.last_words())
    }

    /// Reads the addresses of the public port (if the program has one) and of the operations port from the log, starting at byte
    /// `from`. `None` while they are not logged yet.
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

    fn running(&self) -> anyhow::Result<RunningProcess> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone().with_context(|| format!("{} is not running", self.name))
    }

    /// Returns the URL of a route on the public port.
    pub fn url(&self, path: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}{path}", self.address()?))
    }

    /// Returns the address of the public port.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.running()?.http.with_context(|| format!("{} has no public port", self.name))
    }

    /// Sends a GET to the operations port.
    pub async fn ops(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let response = self.http.get(format!("http://{}{path}", self.running()?.ops)).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// Returns the answer of `/status`.
    pub async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ops("/status").await?.1)?)
    }

    /// Returns the sum of all series of a metric that have the given labels. `None` if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<Option<f64>> {
        let (_, text) = self.ops("/metrics").await?;
        let mut sum = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (family, with) = series.split_once('{').unwrap_or((series, "}"));
            let has_label = |(label, wanted): &(&str, &str)| with.contains(&format!("{label}=\"{wanted}\""));
            if family == name && labels.iter().all(has_label) {
                *sum.get_or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }

    /// Whether the process has been started and has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running().is_ok_and(|running| matches!(running.process.ended(), Ok(None)))
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&self) -> anyhow::Result<()> {
        self.running()?.process.kill()?;
        self.clear_running();
        Ok(())
    }

    /// Suspends the process (SIGSTOP). Its connections, sessions and locks stay.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.running()?.process.pause()
    }

    /// Resumes a suspended process (SIGCONT).
    pub fn wake(&self) -> anyhow::Result<()> {
        self.running()?.process.wake()
    }

    /// Asks the process to end (SIGTERM).
    pub fn ask_to_end(&self) -> anyhow::Result<()> {
        self.running()?.process.ask_to_end()
    }

    /// Waits until the process has ended, and returns its exit status.
    pub async fn end(&self) -> anyhow::Result<ExitStatus> {
        let status = self.running()?.process.end().await.with_context(|| self.last_words())?;
        self.clear_running();
        Ok(status)
    }

    /// Stops the process with SIGTERM, and fails unless it exits with success.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.ask_to_end()?;
        let status = self.end().await?;
        anyhow::ensure!(status.success(), "{} ended with {status} after SIGTERM; {}", self.name, self.last_words());
        Ok(())
    }

    fn clear_running(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Runs a subcommand with this program's environment, such as `projector dead-letters list`, and waits until it ends.
    pub async fn tool(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        run_tool(self.name, &self.environment, arguments).await
    }

    /// Returns the whole log, of all processes of this program.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Returns the end of the log with the path of the log file, for error messages.
    pub(crate) fn last_words(&self) -> String {
        let log = self.said();
        let mut from = log.len().saturating_sub(LOG_TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        format!("{} ends with:\n{}", self.log.display(), &log[from..])
    }
}

/// Runs a subcommand of a program that has not been started, and fails unless it succeeds.
pub(crate) async fn tool(name: Name, environment: &Environment, arguments: &[&str]) -> anyhow::Result<()> {
    let Output { status, stdout, stderr } = run_tool(name, environment, arguments).await?;
    let output = [stdout, stderr].concat();
    anyhow::ensure!(status.success(), "{name} {} ended with {status}: {}", arguments.join(" "), String::from_utf8_lossy(&output));
    Ok(())
}

/// Runs a subcommand and waits until it ends, whatever its exit status.
async fn run_tool(name: Name, environment: &Environment, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut tool = tokio::process::Command::from(command(name, environment)?);
    let run = tool.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let what = || format!("{name} {}", arguments.join(" "));
    tokio::time::timeout(TOOL_TIMEOUT, run).await.with_context(|| format!("{} did not end", what()))?.with_context(what)
}

fn command(name: Name, environment: &Environment) -> anyhow::Result<Command> {
    let mut command = Command::new(built(name.binary())?);
    command.env_clear().envs(env::vars().filter(|(variable, _)| variable == "PATH" || variable == "RUST_BACKTRACE"));
    command.envs(environment.iter().map(|(variable, value)| (variable, value)));
    Ok(command)
}
