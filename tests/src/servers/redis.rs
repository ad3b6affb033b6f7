//! The scenario's own Redis.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use crate::place::{Place, file};
use crate::process::{Process, until_alive};

/// Attempts to start on a free port. Redis cannot choose one itself, and another process may take the chosen one first.
const ATTEMPTS: usize = 5;

/// The Redis process.
#[derive(Debug)]
pub struct Redis {
    folder: std::path::PathBuf,
    process: Mutex<Option<Process>>,
    port: u16,
}

impl Redis {
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Self> {
        let mut last_error = anyhow::anyhow!("Redis was not started");
        for _ in 0..ATTEMPTS {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            match spawn(&place.folder, port).await {
                Ok(process) => return Ok(Self { folder: place.folder.clone(), process: Mutex::new(Some(process)), port }),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Opens a connection that bypasses all links.
    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(self.port).await
    }

    /// Deletes all keys.
    pub async fn empty(&self) -> anyhow::Result<()> {
        redis::cmd("FLUSHALL").query_async::<()>(&mut self.connection().await?).await?;
        Ok(())
    }

    /// Returns the names of all keys.
    pub async fn keys(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.connection().await?.keys("*").await?)
    }

    /// Kills Redis (SIGKILL). It persists nothing, so all keys are lost.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take().context("Redis is not running")?.kill()
    }

    /// Starts Redis again on the same port, without keys.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let process = spawn(&self.folder, self.port).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }
}

/// Starts Redis, and waits until it answers. Compares the process id, because another Redis may already use the port.
async fn spawn(folder: &Path, port: u16) -> anyhow::Result<Process> {
    let mut command = Command::new(file("REDIS_SERVER")?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--maxmemory-policy", "allkeys-lru"]).current_dir(folder);
    let process = Process::spawn("redis-server", &mut command, &folder.join("redis-server.log"))?;
    let expected = format!("process_id:{}", process.pid());
    until_alive(&process, "Redis to answer", async || {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connect(port).await?).await?;
        Ok(info.lines().any(|line| line == expected).then_some(()))
    })
    .await?;
    Ok(process)
}

async fn connect(port: u16) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_multiplexed_async_connection().await?)
}
