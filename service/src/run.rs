//! Runs the tasks of a program until the stop, and ends them.

use std::collections::HashMap;
use std::process;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long the tasks may take to end. The last traces and the closing of database pools come after it; together they stay within the
/// 30 s after which orchestrators usually kill a process.
pub const GRACE: Duration = Duration::from_secs(25);

/// The exit code of an interrupted program, as shells define it.
const INTERRUPTED: i32 = 130;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        info!(signal = name, "Stopping on {name}");
        cancelled.cancel();
        let name = next().await;
        warn!(signal = name, "Exiting at once on a second signal");
        process::exit(INTERRUPTED);
    });
    Ok(stop)
}

/// The tasks of a program, with their names.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end. A panic is an error.
    async fn next(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let ended: Result<(Id, anyhow::Result<()>), JoinError> = self.set.join_next_with_id().await?;
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.into())),
        };
        Some((self.names.remove(&id).unwrap_or("unnamed"), outcome))
    }

    fn running(&self) -> String {
        let mut names: Vec<&str> = self.names.values().copied().collect();
        names.sort_unstable();
        names.join(", ")
    }
}

/// Runs until the stop, then waits for all tasks, at most for the grace.
///
/// A task that ends before the stop, even with `Ok`, is a crash: the other tasks are stopped, and the error ends the program with a
/// failure, so that it is restarted. A task that fails during the stop, or does not end in time, is an error too.
pub async fn until_stopped(mut tasks: Tasks, stop: CancellationToken, grace: Duration) -> anyhow::Result<()> {
    let mut first = Ok(());
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = tasks.next() => if let Some((name, outcome)) = ended {
            first = Err(match outcome {
                Ok(()) => anyhow::anyhow!("{name} ended on its own"),
                Err(error) => error.context(format!("{name} failed")),
            });
            if let Err(crash) = &first {
                error!(task = name, error = format!("{crash:#}"), "Stopping, because {crash}");
            }
            stop.cancel();
        },
    }

    let deadline = Instant::now() + grace;
    loop {
        match timeout_at(deadline, tasks.next()).await {
            Ok(None) => break,
            Ok(Some((_, Ok(())))) => {}
            Ok(Some((name, Err(failure)))) => {
                error!(task = name, error = format!("{failure:#}"), "{name} failed while stopping: {failure}");
                first = first.and(Err(failure.context(format!("{name} failed while stopping"))));
            }
            Err(_) => {
                let hung = tasks.running();
                error!(tasks = hung, "Not stopped after the grace period of {grace:?}: {hung}");
                tasks.set.abort_all();
                bail!("not stopped after the grace period of {grace:?}: {hung}");
            }
        }
    }
    if first.is_ok() {
        info!("Stopped");
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obedient(stop: &CancellationToken) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_stop_ends_well_when_every_task_obeys() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new();
        tasks.spawn("one", obedient(&stop));
        tasks.spawn("two", obedient(&stop));
        stop.cancel();
        until_stopped(tasks, stop, GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_a_crash_and_stops_the_others() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new();
        tasks.spawn("worker", obedient(&stop));
        tasks.spawn("short", async { Ok(()) });
        let error = until_stopped(tasks, stop.clone(), GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "short ended on its own");
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_and_an_error_name_their_task() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new();
        tasks.spawn("fragile", async { panic!("by design of the test") });
        let error = until_stopped(tasks, stop, GRACE).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("fragile failed: "), "{error:#}");

        let stop = CancellationToken::new();
        let mut tasks = Tasks::new();
        let told = stop.clone();
        tasks.spawn("closing", async move {
            told.cancelled().await;
            bail!("the last write failed")
        });
        stop.cancel();
        let error = until_stopped(tasks, stop, GRACE).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "closing failed while stopping: the last write failed");
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named() {
        const SHORT: Duration = Duration::from_millis(20);
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn("obedient", obedient(&stop));
        stop.cancel();
        let error = until_stopped(tasks, stop, SHORT).await.unwrap_err();
        assert_eq!(error.to_string(), "not stopped after the grace period of 20ms: deaf");
    }
}
