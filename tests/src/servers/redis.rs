//! A cache of the scenario's own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use crate::place::{Place, file};
use crate::process::{Process, until_alive};

/// Redis cannot choose a free port by itself, and one that was free a moment ago may be taken.
const TRIES: usize = 5;

#[derive(Debug)]
pub struct Redis {
    folder: std::path::PathBuf,
    process: Mutex<Option<Process>>,
    port: u16,
}

impl Redis {
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Self> {
        let mut last = anyhow::anyhow!("Redis was not tried");
        for _ in 0..TRIES {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            match started(&place.folder, port).await {
                Ok(process) => return Ok(Self { folder: place.folder.clone(), process: Mutex::new(Some(process)), port }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection past all links.
    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(self.port).await
    }

    /// Forgets everything, as a cache may at any time.
    pub async fn empty(&self) -> anyhow::Result<()> {
        redis::cmd("FLUSHALL").query_async::<()>(&mut self.connection().await?).await?;
        Ok(())
    }

    /// The names of all keys.
    pub async fn keys(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.connection().await?.keys("*").await?)
    }

    /// Ends it; what it held is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take().context("Redis is not running")?.kill()
    }

    /// Starts it again on the same port, empty.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let process = started(&self.folder, self.port).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }
}

async fn started(folder: &Path, port: u16) -> anyhow::Result<Process> {
    let mut command = Command::new(file("REDIS_SERVER")?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--maxmemory-policy", "allkeys-lru"]).current_dir(folder);
    let process = Process::spawn("redis-server", &mut command, &folder.join("redis-server.log"))?;
    let ours = format!("process_id:{}", process.pid());
    until_alive(&process, "Redis to answer", async || {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connect(port).await?).await?;
        Ok(info.lines().any(|line| line == ours).then_some(()))
    })
    .await?;
    Ok(process)
}

async fn connect(port: u16) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_multiplexed_async_connection().await?)
}
