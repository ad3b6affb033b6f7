//! Closed-loop load generator with little overhead: requests are prepared bytes, and responses are read by their length.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Measurements of one run of a load generator.
pub struct LoadReport {
    pub answers: u64,
    pub elapsed: Duration,
    /// In ascending order.
    pub latencies: Vec<Duration>,
}

impl LoadReport {
    /// Returns responses per second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// Returns the latency that this share of requests did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(&self.latencies, share)
    }
}

/// Returns a quantile of sorted values.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

/// Runs `clients` for `time`; each sends one request after the other. `request(client, n)` returns the bytes of a request.
pub async fn closed_loop<F>(address: SocketAddr, clients: usize, time: Duration, request: F) -> anyhow::Result<LoadReport>
where
    F: Fn(usize, u64) -> Vec<u8> + Clone + Send + 'static,
{
    let started = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        let request = request.clone();
        running.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut latencies = Vec::new();
            let mut n = 0;
            while started.elapsed() < time {
                let bytes = request(client, n);
                let sent = Instant::now();
                let status = connection.exchange(&bytes).await?.0;
                latencies.push(sent.elapsed());
                if !(200..300).contains(&status) {
                    bail!("{address} answered {status} to {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
                }
                n += 1;
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(client) = running.join_next().await {
        latencies.append(&mut client??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    Ok(LoadReport { answers: latencies.len() as u64, elapsed, latencies })
}

/// One HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Sends one request; returns status and body of the response.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed in the middle of a response");
            }
            let Some(head) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head])?;
            let status = text.get(9..12).context("no status line")?.parse()?;
            let length = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
            let body = head + 4;
            while self.buffer.len() < body + length {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    bail!("the connection was closed in the middle of a body");
                }
            }
            return Ok((status, &self.buffer[body..body + length]));
        }
    }
}

/// Returns the bytes of a GET request.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n").into_bytes()
}

/// Returns the bytes of a POST request with a JSON body.
pub fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
