//! Sends batches of lines one after the other, each until it is answered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use backon::{ExponentialBuilder, Retryable as _};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::warn;

use super::report::{ImportProgress, RejectsFile};

/// Upper bounds of a batch: well below those of the route, so that the answer comes soon.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Retries of a batch that was not answered. They take about two minutes.
const ATTEMPTS: usize = 12;
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_LAST: Duration = Duration::from_secs(15);

/// A line of the file.
pub struct ImportLine {
    /// From 1, as editors count.
    pub number: u64,
    pub text: Vec<u8>,
}

impl ImportLine {
    /// Returns whether sending the line twice creates at most one listing: it has an `external_id`, or it is not valid JSON and creates
    /// none.
    fn is_safe_to_resend(&self) -> bool {
        #[derive(Deserialize)]
        struct WithExternalId {
            external_id: Option<IgnoredAny>,
        }
        serde_json::from_slice::<WithExternalId>(&self.text).is_ok_and(|line| line.external_id.is_some())
            || serde_json::from_slice::<IgnoredAny>(&self.text).is_err()
    }
}

/// Lines collected for one request.
#[derive(Default)]
pub struct LineBatch {
    lines: Vec<ImportLine>,
    bytes: usize,
}

impl LineBatch {
    /// Adds a line. If it does not fit any more, returns the lines before it.
    pub fn add(&mut self, line: ImportLine) -> Option<Vec<ImportLine>> {
        let full = self.lines.len() == BATCH_LINES || (self.bytes + line.text.len() > BATCH_BYTES && !self.lines.is_empty());
        let ready = full.then(|| std::mem::take(self).lines);
        self.bytes += line.text.len() + 1;
        self.lines.push(line);
        ready
    }

    pub fn rest(self) -> Option<Vec<ImportLine>> {
        (!self.lines.is_empty()).then_some(self.lines)
    }
}

/// One of several parallel senders.
pub struct BatchSender {
    pub client: Client,
    pub url: Url,
    pub progress: Arc<ImportProgress>,
    pub rejects: Arc<RejectsFile>,
}

/// The batch route's answer to a line.
#[derive(Debug, Deserialize)]
struct LineAnswer {
    index: usize,
    status: u16,
    #[serde(default)]
    problem: Value,
}

/// Why a batch was not answered.
enum BatchError {
    /// Nothing of the batch was done; a retry may succeed, after the server's `Retry-After`.
    Retryable(anyhow::Error, Option<Duration>),
    /// The batch may have been done.
    Unknown(anyhow::Error),
    Permanent(anyhow::Error),
}

impl BatchSender {
    pub async fn run(self, mut batches: mpsc::Receiver<Vec<ImportLine>>) -> anyhow::Result<()> {
        while let Some(mut lines) = batches.recv().await {
            while !lines.is_empty() {
                let answers = self.send(&lines).await?;
                lines = self.record(lines, answers).await?;
            }
        }
        Ok(())
    }

    /// Sends a batch until it is answered. A batch whose answer was lost may have been done, so it is sent again only if every line is
    /// safe to resend.
    async fn send(&self, lines: &[ImportLine]) -> anyhow::Result<Vec<LineAnswer>> {
        let body: Vec<u8> = lines.iter().flat_map(|line| line.text.iter().copied().chain([b'\n'])).collect();
        let body = bytes::Bytes::from(body);
        let backoff = ExponentialBuilder::new()
            .with_min_delay(BACKOFF_FIRST)
            .with_max_delay(BACKOFF_LAST)
            .with_max_times(ATTEMPTS)
            .with_jitter();
        let sent = (|| self.attempt(body.clone(), lines.len()))
            .retry(backoff)
            .sleep(tokio::time::sleep)
            .when(|error| match error {
                BatchError::Retryable(..) => true,
                BatchError::Unknown(_) => lines.iter().all(ImportLine::is_safe_to_resend),
                BatchError::Permanent(_) => false,
            })
            .adjust(|error, delay| match (error, delay) {
                (BatchError::Retryable(_, Some(retry_after)), Some(delay)) => Some(delay.max((*retry_after).min(BACKOFF_LAST))),
                (_, delay) => delay,
            })
            .notify(|error, delay| {
                if let BatchError::Retryable(error, _) | BatchError::Unknown(error) = error {
                    warn!(error = format!("{error:#}"), retry_ms = delay.as_millis(), "Will send a batch again: {error:#}");
                }
            });
        sent.await.map_err(|error| match error {
            BatchError::Unknown(error) if !lines.iter().all(ImportLine::is_safe_to_resend) => {
                error.context(may_be_duplicated(lines))
            }
            BatchError::Retryable(error, _) | BatchError::Unknown(error) => {
                error.context("a batch was not answered after all retries; run the import again later")
            }
            BatchError::Permanent(error) => error,
        })
    }

    async fn attempt(&self, body: bytes::Bytes, lines: usize) -> Result<Vec<LineAnswer>, BatchError> {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson").body(body);
        let response = request.send().await.map_err(|error| {
            if error.is_connect() { BatchError::Retryable(error.into(), None) } else { BatchError::Unknown(error.into()) }
        })?;
        let status = response.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let retry_after = retry_after(&response);
            return Err(BatchError::Retryable(error_of(status, response).await, retry_after));
        }
        if status.is_server_error() {
            return Err(BatchError::Unknown(error_of(status, response).await));
        }
        if status != StatusCode::OK {
            return Err(BatchError::Permanent(error_of(status, response).await));
        }
        let text = response.bytes().await.map_err(|error| BatchError::Unknown(error.into()))?;
        let answers = parse_answers(&text, lines);
        answers.map_err(BatchError::Permanent)
    }

    /// Counts the answers and writes the rejected lines to the rejects file. Returns the lines to send again: those that the batch had no
    /// time for, and those with an unknown outcome if they are safe to resend. The first line is never among them, so that every
    /// request makes progress.
    async fn record(&self, lines: Vec<ImportLine>, answers: Vec<LineAnswer>) -> anyhow::Result<Vec<ImportLine>> {
        let mut again = Vec::new();
        for (line, answer) in lines.into_iter().zip(answers) {
            match answer.status {
                503 if answer.index > 0 => again.push(line),
                504 if answer.index > 0 && line.is_safe_to_resend() => again.push(line),
                201 => {
                    self.progress.count_created();
                    if !line.is_safe_to_resend() {
                        self.progress.count_without_external_id();
                    }
                }
                200 => self.progress.count_existing(),
                status => {
                    self.rejects.add(line.number, status, &answer.problem, &line.text).await?;
                    self.progress.reject();
                }
            }
        }
        Ok(again)
    }
}

fn may_be_duplicated(lines: &[ImportLine]) -> String {
    let (first, last) = (lines.first().map_or(0, |line| line.number), lines.last().map_or(0, |line| line.number));
    format!(
        "lines {first} to {last} may or may not have been created, and some of them have no external_id, so sending them again could create \
         them twice; check which ones exist, then import the rest of the file"
    )
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn error_of(status: StatusCode, response: Response) -> anyhow::Error {
    anyhow::anyhow!("the batch was answered with {status}: {}", response.text().await.unwrap_or_default())
}

/// Parses the answer: one line for each line of the batch, in the same order.
fn parse_answers(text: &[u8], lines: usize) -> anyhow::Result<Vec<LineAnswer>> {
    let answers = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
    let answers: Vec<LineAnswer> = answers.collect::<Result<_, _>>().context("the answer of the batch route is not valid")?;
    if answers.len() != lines || answers.iter().enumerate().any(|(at, answer)| answer.index != at) {
        bail!("the batch route answered {} lines of {lines}", answers.len());
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, length: usize) -> ImportLine {
        ImportLine { number, text: vec![b'x'; length] }
    }

    #[test]
    fn a_batch_is_full_by_lines_or_by_bytes() {
        let mut batch = LineBatch::default();
        assert!((0..500).all(|number| batch.add(line(number, 1)).is_none()));
        assert_eq!(batch.add(line(500, 1)).map(|full| full.len()), Some(500));
        assert_eq!(batch.rest().map(|rest| rest.len()), Some(1));

        let mut batch = LineBatch::default();
        assert!(batch.add(line(0, BATCH_BYTES * 2)).is_none(), "a line that is too long for any batch goes alone");
        assert_eq!(batch.add(line(1, 1)).map(|full| full.len()), Some(1));
        assert!(LineBatch::default().rest().is_none());
    }

    #[test]
    fn a_line_without_a_name_is_not_sent_twice() {
        for (text, again) in [
            (r#"{"external_id":"7","title":"A bicycle"}"#, true),
            (r#"{"title":"A bicycle"}"#, false),
            (r#"{"external_id":null,"title":"A bicycle"}"#, false),
            (r#"{"title":"A bic"#, true),
            ("7", false),
        ] {
            assert_eq!(ImportLine { number: 1, text: text.into() }.is_safe_to_resend(), again, "{text}");
        }
    }

    #[test]
    fn answers_are_counted() {
        let two = b"{\"index\":0,\"status\":201,\"id\":\"x\",\"version\":1}\n{\"index\":1,\"status\":422,\"problem\":{\"title\":\"t\"}}\n";
        assert_eq!(parse_answers(two, 2).unwrap()[1].status, 422);
        assert!(parse_answers(two, 3).is_err());
        assert!(parse_answers(b"<html>", 1).is_err());
    }
}
