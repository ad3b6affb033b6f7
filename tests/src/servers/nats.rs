//! The scenario's own NATS server with JetStream.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use async_nats::jetstream;
use serde_json::Value;

use crate::place::{Place, file};
use crate::process::{Process, until_alive};

/// Makes the server choose a free port.
const ANY_PORT: &str = "-1";

/// Name of the folder with the JetStream data.
const STORE_FOLDER: &str = "nats";

/// The broker process, and a client that is connected to it directly.
#[derive(Debug)]
pub struct Nats {
    name: String,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
    port: u16,
    client: async_nats::Client,
}

impl Nats {
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Self> {
        let process = spawn(&place.name, &place.folder, ANY_PORT)?;
        let ports = place.folder.join(format!("nats-server_{}.ports", process.pid()));
        let port = until_alive(&process, "the broker to write its ports file", async || port_in(&ports)).await?;
        let client = connect(&place.name, port, &process).await?;
        Ok(Self { name: place.name.clone(), folder: place.folder.clone(), process: Mutex::new(Some(process)), port, client })
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a client that bypasses all links. It reconnects by itself after the server has restarted.
    #[must_use]
    pub fn client(&self) -> async_nats::Client {
        self.client.clone()
    }

    #[must_use]
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client())
    }

    /// Kills the broker (SIGKILL). The messages that it acknowledged are on disk.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take().context("the broker is not running")?.kill()
    }

    /// Copies the store folder, like a backup. The broker must not be running.
    pub fn copy_store(&self) -> anyhow::Result<()> {
        copy(&self.store(), &self.copied_store())
    }

    /// Replaces the store folder by the copy, like a restore. The broker must not be running.
    pub fn put_copy_back(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.store())?;
        fs::rename(self.copied_store(), self.store())?;
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.folder.join(STORE_FOLDER)
    }

    fn copied_store(&self) -> PathBuf {
        self.folder.join("nats-copy")
    }

    /// Starts the broker again, on the same port and with the same data.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let process = spawn(&self.name, &self.folder, &self.port.to_string())?;
        connect(&self.name, self.port, &process).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }
}

fn spawn(name: &str, folder: &Path, port: &str) -> anyhow::Result<Process> {
    let mut command = Command::new(file("NATS_SERVER")?);
    command.arg("--config").arg(file("NATS_CONF")?);
    command.args(["--addr", "127.0.0.1", "--port", port, "--name", name]);
    command.arg("--ports_file_dir").arg(folder).arg("--store_dir").arg(folder.join(STORE_FOLDER));
    Process::spawn("nats-server", &mut command, &folder.join("nats-server.log"))
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Reads the port from the ports file; `None` while the file is missing or incomplete.
fn port_in(ports: &Path) -> anyhow::Result<Option<u16>> {
    let Ok(text) = fs::read_to_string(ports) else { return Ok(None) };
    let Ok(written) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
    let url = written["nats"][0].as_str().context("the ports file has no client address")?;
    Ok(Some(url.rsplit(':').next().unwrap_or_default().parse()?))
}

/// Waits until the broker and JetStream answer, and checks that it is the process that was started here.
async fn connect(name: &str, port: u16, process: &Process) -> anyhow::Result<async_nats::Client> {
    let address = format!("127.0.0.1:{port}");
    let client = until_alive(process, "the broker to answer", async || Ok(Some(async_nats::connect(&address).await?))).await?;
    let found = client.server_info().server_name;
    anyhow::ensure!(found == name, "the broker on {address} is {found} instead of {name}");
    until_alive(process, "JetStream", async || Ok(Some(jetstream::new(client.clone()).query_account().await?))).await?;
    Ok(client)
}
