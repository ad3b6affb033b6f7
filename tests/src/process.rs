//! A child process of the harness: it can be signalled, and is killed at the latest when its [`Process`] is dropped.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::until::{until_some, within};

/// How long a program may take to end after SIGTERM: its own limit of 30 s and a margin.
const STOP_TIMEOUT: Duration = Duration::from_secs(32);

/// A running or ended child process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Mutex<Child>,
    pid: u32,
}

impl Process {
    /// Starts a process whose standard output and error are appended to `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out =
            File::options().create(true).append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id();
        notify_cleanup_shell("watch", pid);
        Ok(Self { name: name.to_owned(), child: Mutex::new(child), pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = self.child().try_wait()?;
        if ended.is_some() {
            notify_cleanup_shell("forget", self.pid);
        }
        Ok(ended)
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        drop(child);
        notify_cleanup_shell("forget", self.pid);
        Ok(())
    }

    /// Suspends the process (SIGSTOP). Its connections stay open.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes a suspended process (SIGCONT).
    pub fn wake(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks the process to end (SIGTERM).
    pub fn ask_to_end(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until the process has ended.
    pub async fn end(&self) -> anyhow::Result<ExitStatus> {
        within(STOP_TIMEOUT, format_args!("{} to end", self.name), async || self.ended()).await
    }

    /// Sends a signal, unless the process has ended. Until its exit status is collected its id is not reused, so that the signal
    /// cannot reach another process; the lock keeps others from collecting it meanwhile.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.child();
        let ended = child.try_wait()?;
        anyhow::ensure!(ended.is_none(), "{} has ended already: {ended:?}", self.name);
        kill_process(Pid::from_child(&child), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If killing fails, there is nothing else to try.
        let _ = self.kill();
    }
}

/// Waits until `look` returns `Some`. Fails at once if the process ends first.
pub(crate) async fn until_alive<T>(
    process: &Process,
    what: impl std::fmt::Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    until_some(what, async || match process.ended()? {
        Some(status) => Ok(Some(Err(status))),
        None => Ok(look().await?.map(Ok)),
    })
    .await?
    .map_err(|status| anyhow::anyhow!("{} ended instead of starting: {status}", process.name))
}

/// A shell that kills the child processes if the test process is killed, because `Drop` does not run then. It reads the ids of
/// started (`watch`) and ended (`forget`) processes from a pipe. When the test process ends, the pipe closes, and the shell kills
/// the processes that have not ended.
const CLEANUP_SHELL: &str = r#"
trap '' INT TERM
left=' '
while read -r word pid; do
  case $word in
    watch) left="$left$pid " ;;
    # An id that is not in the list must not change it: the expansion below would then write the list twice.
    forget) case $left in *" $pid "*) left="${left%% $pid *} ${left#* $pid }" ;; esac ;;
  esac
done
[ "$left" = ' ' ] || kill -KILL $left 2>/dev/null
"#;

/// Sends `watch` or `forget` with a process id to the cleanup shell, which is started on first use.
fn notify_cleanup_shell(command: &str, pid: u32) {
    static SHELL_STDIN: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let stdin = SHELL_STDIN.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", CLEANUP_SHELL])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        shell.ok()?.stdin.take().map(Mutex::new)
    });
    if let Some(stdin) = stdin {
        let mut stdin = stdin.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the shell, child processes are left over only if the test process is killed.
        let _ = writeln!(stdin, "{command} {pid}");
    }
}
