//! One process that the harness started: signalled by its id, and dead at the latest when its owner is dropped.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::until::{until_some, within};

/// In which a program must end after SIGTERM, and a little more.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(32);

#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Mutex<Child>,
    pid: u32,
}

impl Process {
    /// Starts a process that writes what it has to say to the end of `log`.
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
        undertake("watch", pid);
        Ok(Self { name: name.to_owned(), child: Mutex::new(child), pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = self.child().try_wait()?;
        if ended.is_some() {
            undertake("forget", self.pid);
        }
        Ok(ended)
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        drop(child);
        undertake("forget", self.pid);
        Ok(())
    }

    /// Stops it in the middle of whatever it does. Its connections stay open.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on, believing that no time has passed.
    pub fn wake(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    pub async fn end(&self) -> anyhow::Result<ExitStatus> {
        within(STOP_WITHIN, format_args!("{} to end", self.name), async || self.ended()).await
    }

    /// Only a process that has not been waited for: its id cannot belong to another one yet.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.child();
        let ended = child.try_wait()?;
        anyhow::ensure!(ended.is_none(), "{} has ended already: {ended:?}", self.name);
        kill_process(Pid::from_child(&child), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to be done about a process that cannot be killed.
        let _ = self.kill();
    }
}

/// Waits until the process has done something, and says so at once if it ended instead.
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

/// A test process that is killed drops nothing. This shell reads from a pipe that breaks with it, and then kills what was
/// left: only children of ours that nobody has waited for.
const UNDERTAKER: &str = r#"
trap '' INT TERM
left=' '
while read -r word pid; do
  case $word in
    watch) left="$left$pid " ;;
    # Told again, it must change nothing: what the patterns do not find they would keep twice.
    forget) case $left in *" $pid "*) left="${left%% $pid *} ${left#* $pid }" ;; esac ;;
  esac
done
[ "$left" = ' ' ] || kill -KILL $left 2>/dev/null
"#;

fn undertake(word: &str, pid: u32) {
    static UNDERTAKER_STDIN: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let stdin = UNDERTAKER_STDIN.get_or_init(|| {
        let shell =
            Command::new("sh").args(["-c", UNDERTAKER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        shell.ok()?.stdin.take().map(Mutex::new)
    });
    if let Some(stdin) = stdin {
        let mut stdin = stdin.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the undertaker only a killed test run leaves something behind.
        let _ = writeln!(stdin, "{word} {pid}");
    }
}
