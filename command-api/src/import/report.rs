//! What an import has done: its progress, and the file of rejected lines.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::Mutex;

/// How often a line is printed if standard error is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(5);
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Counters of an import: a progress bar on a terminal, a line every few seconds elsewhere.
pub struct ImportProgress {
    started: Instant,
    /// Size of the input in bytes, if known.
    size: Option<u64>,
    read: AtomicU64,
    created: AtomicU64,
    existing: AtomicU64,
    rejected: AtomicU64,
    without_external_id: AtomicU64,
    bar: Option<ProgressBar>,
}

impl ImportProgress {
    pub fn new(size: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match size {
                Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}  ETA {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
            };
            // The templates above are valid; if not, a plain bar is better than a failed import.
            bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            size,
            read: zero(),
            created: zero(),
            existing: zero(),
            rejected: zero(),
            without_external_id: zero(),
            bar,
        }
    }

    pub fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn count_created(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a line whose listing existed already, changed or not.
    pub fn count_existing(&self) {
        self.existing.fetch_add(1, Ordering::Relaxed);
    }

    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a listing that was created without an `external_id`.
    pub fn count_without_external_id(&self) {
        self.without_external_id.fetch_add(1, Ordering::Relaxed);
    }

    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    pub fn without_external_id(&self) -> u64 {
        self.without_external_id.load(Ordering::Relaxed)
    }

    /// Shows the progress regularly. Never returns.
    pub async fn report_regularly(&self) {
        let mut turns = tokio::time::interval(if self.bar.is_some() { REDRAW_EVERY } else { REPORT_EVERY });
        turns.tick().await;
        loop {
            turns.tick().await;
            let read = self.read.load(Ordering::Relaxed);
            if let Some(bar) = &self.bar {
                bar.set_position(read);
                bar.set_message(self.counts());
            } else {
                eprintln!("{}", self.counts() + &self.remaining(read));
            }
        }
    }

    pub fn summary(&self) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let created = self.created.load(Ordering::Relaxed);
        let existing = self.existing.load(Ordering::Relaxed);
        format!("{} in {:.1} s: {created} created, {existing} were there", self.counts(), self.started.elapsed().as_secs_f64())
    }

    fn done(&self) -> u64 {
        [&self.created, &self.existing, &self.rejected].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn counts(&self) -> String {
        let done = self.done();
        let mut counts = format!("{done} lines");
        #[expect(clippy::cast_precision_loss, reason = "a rate that is shown without digits after the point")]
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        // Writing to a String cannot fail.
        let _ = write!(counts, ", {rate:.0}/s, {} rejected", self.rejected());
        counts
    }

    /// Estimates the remaining time from the bytes read, because the number of lines is not known.
    fn remaining(&self, read: u64) -> String {
        let Some(size) = self.size.filter(|&size| self.done() > 0 && read < size) else { return String::new() };
        #[expect(clippy::cast_precision_loss, reason = "an estimate in whole seconds")]
        let left = self.started.elapsed().as_secs_f64() * (size.saturating_sub(read) as f64 / read as f64);
        format!(", ETA {left:.0} s")
    }
}

/// The file of rejected lines, each with its problem. It is created with the first one.
pub struct RejectsFile {
    path: PathBuf,
    file: Mutex<Option<BufWriter<File>>>,
}

#[derive(Serialize)]
struct RejectedLine<'a> {
    line: u64,
    status: u16,
    problem: &'a Value,
    /// The line itself, so that it can be corrected from this file alone.
    input: String,
}

impl RejectsFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub async fn add(&self, line: u64, status: u16, problem: &Value, input: &[u8]) -> anyhow::Result<()> {
        let rejected = RejectedLine { line, status, problem, input: String::from_utf8_lossy(input).into_owned() };
        let mut text = serde_json::to_vec(&rejected)?;
        text.push(b'\n');
        let mut file = self.file.lock().await;
        let writer = if let Some(writer) = file.as_mut() {
            writer
        } else {
            let opened = File::create(&self.path).await.with_context(|| format!("cannot write {}", self.path.display()))?;
            file.insert(BufWriter::new(opened))
        };
        Ok(writer.write_all(&text).await?)
    }

    pub async fn close(&self) -> anyhow::Result<()> {
        if let Some(file) = self.file.lock().await.as_mut() {
            file.flush().await.with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(())
    }
}
