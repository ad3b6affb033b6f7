//! The life of a program that serves until it is stopped. All three programs go through these steps:
//!
//! 1. [`Program::start`]: logs, traces, and a token that SIGTERM cancels.
//! 2. The program makes its dependencies and registers their metrics. Nothing connects yet, so that a store that is down makes the
//!    program unready and does not keep it from starting.
//! 3. [`Program::open_ops`]: `/ready` answers `starting`.
//! 4. [`Program::serve_http`] and [`Program::spawn`]: the work begins; [`Lifecycle::started`] makes `/ready` answer `ready`.
//! 5. [`Program::until_stopped`]: after the stop signal, requests and tasks finish; then the operations port closes; last, the
//!    remaining traces are exported.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Lifecycle;
use crate::ops::{self, Ops};
use crate::run::{self, GRACE, Tasks};
use crate::serve::{self, Drain};
use crate::settings::LogArgs;
use crate::telemetry::{self, TelemetryGuard};

/// A running program: its tasks, and what ends them.
pub struct Program {
    /// Cancelled by SIGTERM or SIGINT, or when a task ends before the stop.
    pub stop: CancellationToken,
    pub lifecycle: Lifecycle,
    telemetry: TelemetryGuard,
    tasks: Tasks,
    ops: Option<JoinHandle<()>>,
    ops_stop: CancellationToken,
}

impl Program {
    /// Starts logs, traces and the handling of signals. `name` is the program's name in traces.
    pub fn start(name: &'static str, log: &LogArgs) -> anyhow::Result<Self> {
        let telemetry = telemetry::init(name, log)?;
        let (stop, lifecycle) = (run::stop_on_signal()?, Lifecycle::default());
        lifecycle.follow(&stop);
        Ok(Self { stop, lifecycle, telemetry, tasks: Tasks::new(), ops: None, ops_stop: CancellationToken::new() })
    }

    /// Opens the operations port. It answers until all tasks have ended.
    pub async fn open_ops(&mut self, addr: SocketAddr, ops: Ops) -> anyhow::Result<()> {
        let listener = ops::bind(addr).await?;
        self.ops = Some(tokio::spawn(ops.serve(listener, self.ops_stop.clone())));
        Ok(())
    }

    /// Opens the public port and serves these routes on it. The returned token is cancelled when the last request has been answered.
    /// Wait for it before stopping a task that finishes work of requests, such as the relay.
    pub async fn serve_http(&mut self, addr: SocketAddr, routes: Router) -> anyhow::Result<CancellationToken> {
        let listener = serve::bind("HTTP_ADDR", addr).await?;
        let serving = serve::serve(listener, routes, self.lifecycle.clone(), Drain::default(), self.stop.clone());
        let answered = CancellationToken::new();
        let all_answered = answered.clone().drop_guard();
        self.tasks.spawn("http", async move {
            let _all_answered = all_answered;
            serving.await
        });
        Ok(answered)
    }

    /// Starts a task that runs until a token tells it to end. If it ends before the stop, the program stops with an error.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(name, task);
    }

    /// Runs until the stop and ends the program in order: tasks, operations port, `close`, traces.
    pub async fn until_stopped(self, close: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = run::until_stopped(self.tasks, self.stop, GRACE).await;
        self.ops_stop.cancel();
        if let Some(ops) = self.ops {
            ops.await?;
        }
        close.await;
        self.telemetry.shutdown().await;
        ended
    }
}

/// The exit code of a program or subcommand. An error goes to stderr with its sources.
#[must_use]
pub fn exit_code(program: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of a subcommand's result. A closed pipe, as after `| head`, is no error.
///
/// # Errors
/// If the line cannot be written for another reason, such as a full disk.
pub fn print_line(line: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
