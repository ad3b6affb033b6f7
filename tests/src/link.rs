//! A TCP proxy between one program and one server, for fault injection.
//!
//! A scenario can break all connections (`cut`), stop forwarding (`freeze`), make the existing connections hang forever
//! (`strand`), add latency (`slow_down`), and stop one connection at a chosen message (`hold`).
//!
//! `hold` makes kill points without failpoints in the product: the scenario holds, for example, the broker's ack or the DELETE
//! sent to Postgres, and kills the program meanwhile. The program has then died exactly between two steps.

mod statements;
mod watcher;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::until::until;
use watcher::{ArmedHold, Watcher};
pub use watcher::{Direction, Hold, Moment};

/// Maximum length of the accept queue.
const BACKLOG: u32 = 128;
/// Size of the read buffer in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    /// Connections stay open and new ones are accepted, but no bytes are forwarded.
    Frozen,
    /// Existing connections are closed and new ones refused.
    Cut,
}

/// The proxy of one program and one server. It forwards everything until a scenario changes that.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
    /// Bound but never listening. It reserves the port while the link is cut, so that no other process can take it.
    _port: TcpSocket,
}

/// What the link, its accept loop and its connections share.
#[derive(Debug)]
struct Shared {
    server: String,
    state: watch::Sender<LinkState>,
    /// Connections opened in an earlier epoch are stranded: their bytes are never forwarded again.
    epoch: watch::Sender<u64>,
    delay: watch::Sender<Duration>,
    armed: Mutex<Vec<ArmedHold>>,
    /// The accept loop and each connection hold a receiver, so that `cut` can wait until all of them have ended.
    active: watch::Sender<()>,
}

impl Link {
    /// Starts a proxy to this server on a free port.
    pub fn to(server: String) -> anyhow::Result<Self> {
        let port = bound((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = port.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            state: watch::Sender::new(LinkState::Open),
            epoch: watch::Sender::new(0),
            delay: watch::Sender::new(Duration::ZERO),
            armed: Mutex::default(),
            active: watch::Sender::new(()),
        });
        let listener = bound(address)?.listen(BACKLOG)?;
        let accepting = tokio::spawn(accept(address, listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting, _port: port })
    }

    /// Returns the address of the proxy, which the program uses as the server's.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes all connections and refuses new ones, as if the server were not running. Returns when all are closed.
    pub async fn cut(&self) -> anyhow::Result<()> {
        self.shared.state.send_replace(LinkState::Cut);
        until("the link to be cut", async || Ok(self.shared.active.receiver_count() == 0)).await
    }

    /// Stops forwarding bytes while connections stay open, as when a machine or the network hangs.
    pub fn freeze(&self) {
        self.shared.state.send_replace(LinkState::Frozen);
    }

    /// Makes the existing connections hang forever while new ones work, as when the server's machine has failed without closing
    /// its connections and another one has taken over its name.
    pub async fn strand(&self) -> anyhow::Result<()> {
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
        self.mend().await
    }

    /// Ends a cut or a freeze. Returns when connections are accepted again.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.shared.state.send_replace(LinkState::Open);
        until("the link to be mended", async || Ok(self.shared.active.receiver_count() > 0)).await
    }

    /// Delays each chunk of bytes by this much, in both directions.
    pub fn slow_down(&self, delay: Duration) {
        self.shared.delay.send_replace(delay);
    }

    /// Arms a hold: the first connection that reaches this moment forwards nothing from there on in that direction, until the
    /// hold is released.
    #[must_use]
    pub fn hold(&self, moment: Moment) -> Hold {
        let (hold, armed) = Hold::at(moment);
        self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
        hold
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Creates a socket that is bound to this address, but does not listen.
fn bound(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Two sockets are bound to the port: one reserves it, the other listens while the link is not cut.
    socket.set_reuseport(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

/// Accepts connections; while the link is cut, stops listening and closes them.
async fn accept(address: SocketAddr, first: TcpListener, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut state = shared.state.subscribe();
    let mut listener = Some(first);
    // Dropping this task drops the set, which closes all connections.
    let mut connections = JoinSet::new();
    loop {
        let listening = match listener.take() {
            Some(listener) => listener,
            None => bound(address)?.listen(BACKLOG)?,
        };
        let active = shared.active.subscribe();
        loop {
            tokio::select! {
                accepted = listening.accept() => {
                    connections.spawn(forward(accepted?.0, Arc::clone(&shared), shared.active.subscribe()));
                }
                Some(_) = connections.join_next() => {}
                _ = state.wait_for(|state| *state == LinkState::Cut) => break,
            }
        }
        drop(listening);
        connections.shutdown().await;
        drop(active);
        state.wait_for(|state| *state != LinkState::Cut).await?;
    }
}

/// Forwards one connection in both directions, until both sides have closed it or one fails.
async fn forward(program: TcpStream, shared: Arc<Shared>, _active: watch::Receiver<()>) -> anyhow::Result<()> {
    let server = TcpStream::connect(&shared.server).await?;
    program.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let epoch = *shared.epoch.borrow();
    let (from_program, to_program) = program.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_program, to_server, Direction::ToServer, &shared, epoch),
        pump(from_server, to_program, Direction::ToProgram, &shared, epoch),
    )?;
    Ok(())
}

/// Forwards one direction of a connection, and applies the link's state, delay and holds to it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    shared: &Shared,
    epoch: u64,
) -> anyhow::Result<()> {
    let mut state = shared.state.subscribe();
    let mut watcher = Watcher::new(direction);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let delay = *shared.delay.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        state.wait_for(|state| *state == LinkState::Open).await?;
        if *shared.epoch.borrow() != epoch {
            std::future::pending::<()>().await;
        }

        let mut chunk = &buffer[..read];
        let reached = watcher.find(chunk, &mut shared.armed.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((at, hold)) = reached {
            to.write_all(&chunk[..at]).await?;
            chunk = &chunk[at..];
            hold.wait_until_released().await;
        }
        to.write_all(chunk).await?;
    }
}
