//! One of several senders: batch after batch, each until it was answered.

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

use super::progress::Progress;
use super::rejects::Rejects;

/// What one batch holds at most: well below what the route takes, so that an answer comes soon.
const LINES: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// A batch that was not answered is sent again this often, which takes about two minutes.
const ATTEMPTS: usize = 12;
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_CAP: Duration = Duration::from_secs(15);

pub struct Line {
    /// From 1, as editors count.
    pub number: u64,
    pub text: Vec<u8>,
}

impl Line {
    /// Whether sending it twice makes one listing: it names it, or cannot be read and makes none.
    fn can_be_sent_again(&self) -> bool {
        #[derive(Deserialize)]
        struct Named {
            external_id: Option<IgnoredAny>,
        }
        serde_json::from_slice::<Named>(&self.text).is_ok_and(|line| line.external_id.is_some())
            || serde_json::from_slice::<IgnoredAny>(&self.text).is_err()
    }
}

/// Lines that are collected until they are worth a request.
#[derive(Default)]
pub struct Batch {
    lines: Vec<Line>,
    bytes: usize,
}

impl Batch {
    /// Takes a line; gives back a batch that is full without it.
    pub fn add(&mut self, line: Line) -> Option<Vec<Line>> {
        let full = self.lines.len() == LINES || (self.bytes + line.text.len() > BYTES && !self.lines.is_empty());
        let ready = full.then(|| std::mem::take(self).lines);
        self.bytes += line.text.len() + 1;
        self.lines.push(line);
        ready
    }

    pub fn rest(self) -> Option<Vec<Line>> {
        (!self.lines.is_empty()).then_some(self.lines)
    }
}

pub struct Lane {
    pub client: Client,
    pub url: Url,
    pub progress: Arc<Progress>,
    pub rejects: Arc<Rejects>,
}

/// What the batch route says of a line.
#[derive(Debug, Deserialize)]
struct Answered {
    index: usize,
    status: u16,
    #[serde(default)]
    problem: Value,
}

/// Why a batch was not answered.
enum Failed {
    /// Nothing of it was done, and somebody may be able to do it later.
    ForNow(anyhow::Error, Option<Duration>),
    /// It may have been done.
    Unknown(anyhow::Error),
    ForGood(anyhow::Error),
}

impl Lane {
    pub async fn run(self, mut batches: mpsc::Receiver<Vec<Line>>) -> anyhow::Result<()> {
        while let Some(mut lines) = batches.recv().await {
            while !lines.is_empty() {
                let answers = self.send(&lines).await?;
                lines = self.note(lines, answers).await?;
            }
        }
        Ok(())
    }

    /// Sends a batch until it is answered. One whose answer was lost may have been done: sent again, its lines find their listings
    /// as they want them, if each has a name to find them by.
    async fn send(&self, lines: &[Line]) -> anyhow::Result<Vec<Answered>> {
        let body: Vec<u8> = lines.iter().flat_map(|line| line.text.iter().copied().chain([b'\n'])).collect();
        let body = bytes::Bytes::from(body);
        let pauses =
            ExponentialBuilder::new().with_min_delay(PAUSE).with_max_delay(PAUSE_CAP).with_max_times(ATTEMPTS).with_jitter();
        let sent = (|| self.attempt(body.clone(), lines.len()))
            .retry(pauses)
            .sleep(tokio::time::sleep)
            .when(|failed| match failed {
                Failed::ForNow(..) => true,
                Failed::Unknown(_) => lines.iter().all(Line::can_be_sent_again),
                Failed::ForGood(_) => false,
            })
            .adjust(|failed, pause| match (failed, pause) {
                (Failed::ForNow(_, Some(asked)), Some(pause)) => Some(pause.max((*asked).min(PAUSE_CAP))),
                (_, pause) => pause,
            })
            .notify(|failed, pause| {
                if let Failed::ForNow(error, _) | Failed::Unknown(error) = failed {
                    warn!(error = format!("{error:#}"), retry_ms = pause.as_millis(), "Will send a batch again: {error:#}");
                }
            });
        sent.await.map_err(|failed| match failed {
            Failed::Unknown(error) if !lines.iter().all(Line::can_be_sent_again) => error.context(doubled(lines)),
            Failed::ForNow(error, _) | Failed::Unknown(error) => {
                error.context("a batch was never answered; import the file again later")
            }
            Failed::ForGood(error) => error,
        })
    }

    async fn attempt(&self, body: bytes::Bytes, lines: usize) -> Result<Vec<Answered>, Failed> {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson").body(body);
        let response = request.send().await.map_err(|error| {
            if error.is_connect() { Failed::ForNow(error.into(), None) } else { Failed::Unknown(error.into()) }
        })?;
        let status = response.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let asked = asked_to_wait(&response);
            return Err(Failed::ForNow(refusal(status, response).await, asked));
        }
        if status.is_server_error() {
            return Err(Failed::Unknown(refusal(status, response).await));
        }
        if status != StatusCode::OK {
            return Err(Failed::ForGood(refusal(status, response).await));
        }
        let text = response.bytes().await.map_err(|error| Failed::Unknown(error.into()))?;
        let answers = read(&text, lines);
        answers.map_err(Failed::ForGood)
    }

    /// Returns the lines to be sent again: those that the batch had no time for, and those of which nobody knows whether they were done,
    /// if that can be found out by doing them again. The first line is never one of them.
    async fn note(&self, lines: Vec<Line>, answers: Vec<Answered>) -> anyhow::Result<Vec<Line>> {
        let mut left = Vec::new();
        for (line, answer) in lines.into_iter().zip(answers) {
            match answer.status {
                503 if answer.index > 0 => left.push(line),
                504 if answer.index > 0 && line.can_be_sent_again() => left.push(line),
                201 => {
                    self.progress.create();
                    if !line.can_be_sent_again() {
                        self.progress.count_nameless();
                    }
                }
                200 => self.progress.keep(),
                status => {
                    self.rejects.add(line.number, status, &answer.problem, &line.text).await?;
                    self.progress.refuse();
                }
            }
        }
        Ok(left)
    }
}

fn doubled(lines: &[Line]) -> String {
    let (first, last) = (lines.first().map_or(0, |line| line.number), lines.last().map_or(0, |line| line.number));
    format!(
        "lines {first} to {last} may have been created or not: some of them have no external_id and would be created twice; see what \
         is there, then import the rest of the file"
    )
}

fn asked_to_wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn refusal(status: StatusCode, response: Response) -> anyhow::Error {
    anyhow::anyhow!("the batch was answered with {status}: {}", response.text().await.unwrap_or_default())
}

/// One answer for each line, in their order.
fn read(text: &[u8], lines: usize) -> anyhow::Result<Vec<Answered>> {
    let answers = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
    let answers: Vec<Answered> = answers.collect::<Result<_, _>>().context("the answer of the batch route cannot be read")?;
    if answers.len() != lines || answers.iter().enumerate().any(|(at, answer)| answer.index != at) {
        bail!("the batch route answered {} lines of {lines}", answers.len());
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, length: usize) -> Line {
        Line { number, text: vec![b'x'; length] }
    }

    #[test]
    fn a_batch_is_full_by_lines_or_by_bytes() {
        let mut batch = Batch::default();
        assert!((0..500).all(|number| batch.add(line(number, 1)).is_none()));
        assert_eq!(batch.add(line(500, 1)).map(|full| full.len()), Some(500));
        assert_eq!(batch.rest().map(|rest| rest.len()), Some(1));

        let mut batch = Batch::default();
        assert!(batch.add(line(0, BYTES * 2)).is_none(), "a line that is too long for any batch goes alone");
        assert_eq!(batch.add(line(1, 1)).map(|full| full.len()), Some(1));
        assert!(Batch::default().rest().is_none());
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
            assert_eq!(Line { number: 1, text: text.into() }.can_be_sent_again(), again, "{text}");
        }
    }

    #[test]
    fn answers_are_counted() {
        let two = b"{\"index\":0,\"status\":201,\"id\":\"x\",\"version\":1}\n{\"index\":1,\"status\":422,\"problem\":{\"title\":\"t\"}}\n";
        assert_eq!(read(two, 2).unwrap()[1].status, 422);
        assert!(read(two, 3).is_err());
        assert!(read(b"<html>", 1).is_err());
    }
}
