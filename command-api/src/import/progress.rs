//! How far an import is: a bar on a terminal, a line every few seconds elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);
const REDRAW_EVERY: Duration = Duration::from_millis(200);

pub struct Progress {
    started: Instant,
    /// Of the input, in bytes, where it is known.
    size: Option<u64>,
    read: AtomicU64,
    created: AtomicU64,
    kept: AtomicU64,
    refused: AtomicU64,
    nameless: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(size: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match size {
                Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}  ETA {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
            };
            // The templates above are right; a plain bar is not worth failing for.
            bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            size,
            read: zero(),
            created: zero(),
            kept: zero(),
            refused: zero(),
            nameless: zero(),
            bar,
        }
    }

    pub fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn create(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    /// A listing was there already: changed, or as its line says.
    pub fn keep(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A listing was created that nothing names.
    pub fn count_nameless(&self) {
        self.nameless.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn nameless(&self) -> u64 {
        self.nameless.load(Ordering::Relaxed)
    }

    /// Never ends.
    pub async fn tell_regularly(&self) {
        let mut turns = tokio::time::interval(if self.bar.is_some() { REDRAW_EVERY } else { TELL_EVERY });
        turns.tick().await;
        loop {
            turns.tick().await;
            let read = self.read.load(Ordering::Relaxed);
            if let Some(bar) = &self.bar {
                bar.set_position(read);
                bar.set_message(self.told());
            } else {
                eprintln!("{}", self.told() + &self.remaining(read));
            }
        }
    }

    pub fn summary(&self) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let created = self.created.load(Ordering::Relaxed);
        let kept = self.kept.load(Ordering::Relaxed);
        format!("{} in {:.1} s: {created} created, {kept} were there", self.told(), self.started.elapsed().as_secs_f64())
    }

    fn done(&self) -> u64 {
        [&self.created, &self.kept, &self.refused].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn told(&self) -> String {
        let done = self.done();
        let mut told = format!("{done} lines");
        #[expect(clippy::cast_precision_loss, reason = "a rate that is shown without digits after the point")]
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        // Writing to a String cannot fail.
        let _ = write!(told, ", {rate:.0}/s, {} refused", self.refused());
        told
    }

    /// By the bytes that were read: the lines to come are not known.
    fn remaining(&self, read: u64) -> String {
        let Some(size) = self.size.filter(|&size| self.done() > 0 && read < size) else { return String::new() };
        #[expect(clippy::cast_precision_loss, reason = "an estimate in whole seconds")]
        let left = self.started.elapsed().as_secs_f64() * (size.saturating_sub(read) as f64 / read as f64);
        format!(", ETA {left:.0} s")
    }
}
