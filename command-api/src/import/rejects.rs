//! Lines that were refused, each with its reason, in a file of their own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::Mutex;

/// The file comes into being with the first refused line.
pub struct Rejects {
    path: PathBuf,
    file: Mutex<Option<BufWriter<File>>>,
}

#[derive(Serialize)]
struct Rejected<'a> {
    line: u64,
    status: u16,
    problem: &'a Value,
    /// The line itself, so that the file is all that is needed to correct it.
    input: String,
}

impl Rejects {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub async fn add(&self, line: u64, status: u16, problem: &Value, input: &[u8]) -> anyhow::Result<()> {
        let rejected = Rejected { line, status, problem, input: String::from_utf8_lossy(input).into_owned() };
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
