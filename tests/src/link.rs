//! The wire between one program and one server: a TCP proxy that can be cut, frozen, stranded, slowed, and held at a chosen message.
//!
//! Holding makes kill points without failpoints in the product: hold the broker's ack or the DELETE to Postgres, kill the
//! program while it is held, and the program has died exactly between two steps.

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
use watcher::{Armed, Watcher};
pub use watcher::{Direction, Hold, Moment};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// What is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections stay, and new ones come about, but nothing gets through.
    Frozen,
    /// Connections are broken, and new ones refused.
    Cut,
}

/// A wire that lies open until a scenario does something to it.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: AbortHandle,
    /// Bound but never listening: while the link is cut nobody else can get its port, and nobody answers on it.
    _port: TcpSocket,
}

#[derive(Debug)]
struct Wire {
    server: String,
    state: watch::Sender<State>,
    /// Connections of an earlier age are stranded.
    age: watch::Sender<u64>,
    delay: watch::Sender<Duration>,
    armed: Mutex<Vec<Armed>>,
    /// Whoever accepts or pumps holds a receiver.
    busy: watch::Sender<()>,
}

impl Link {
    pub fn to(server: String) -> anyhow::Result<Self> {
        let port = bound((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = port.local_addr()?;
        let wire = Arc::new(Wire {
            server,
            state: watch::Sender::new(State::Open),
            age: watch::Sender::new(0),
            delay: watch::Sender::new(Duration::ZERO),
            armed: Mutex::default(),
            busy: watch::Sender::new(()),
        });
        let listener = bound(address)?.listen(BACKLOG)?;
        let accepting = tokio::spawn(accept(address, listener, Arc::clone(&wire))).abort_handle();
        Ok(Self { address, wire, accepting, _port: port })
    }

    /// What the program believes to be the server.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks all connections and refuses new ones, as if the server were not running. Returns when that is so.
    pub async fn cut(&self) -> anyhow::Result<()> {
        self.wire.state.send_replace(State::Cut);
        until("the link to be cut", async || Ok(self.wire.busy.receiver_count() == 0)).await
    }

    /// Lets nothing through any more while connections stay, as when a machine or the network hangs.
    pub fn freeze(&self) {
        self.wire.state.send_replace(State::Frozen);
    }

    /// Leaves what is connected now frozen for good, while new connections work: the server's machine has vanished without a
    /// word, and another one has its name.
    pub async fn strand(&self) -> anyhow::Result<()> {
        self.wire.age.send_modify(|age| *age += 1);
        self.mend().await
    }

    /// Undoes a cut or a freeze. Returns when connections are taken again.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.wire.state.send_replace(State::Open);
        until("the link to be mended", async || Ok(self.wire.busy.receiver_count() > 0)).await
    }

    /// Makes everything this much slower, in both directions.
    pub fn slow_down(&self, delay: Duration) {
        self.wire.delay.send_replace(delay);
    }

    /// Waits for the next such moment, and then keeps back what comes from there on, on that connection and in that direction.
    #[must_use]
    pub fn hold(&self, moment: Moment) -> Hold {
        let (hold, armed) = Hold::at(moment);
        self.wire.armed.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
        hold
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn bound(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Two sockets on one port: one that holds it, one that comes and goes.
    socket.set_reuseport(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

async fn accept(address: SocketAddr, first: TcpListener, wire: Arc<Wire>) -> anyhow::Result<()> {
    let mut state = wire.state.subscribe();
    let mut listener = Some(first);
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let listening = match listener.take() {
            Some(listener) => listener,
            None => bound(address)?.listen(BACKLOG)?,
        };
        let busy = wire.busy.subscribe();
        loop {
            tokio::select! {
                accepted = listening.accept() => {
                    connections.spawn(carry(accepted?.0, Arc::clone(&wire), wire.busy.subscribe()));
                }
                Some(_) = connections.join_next() => {}
                _ = state.wait_for(|state| *state == State::Cut) => break,
            }
        }
        drop(listening);
        connections.shutdown().await;
        drop(busy);
        state.wait_for(|state| *state != State::Cut).await?;
    }
}

/// Carries one connection; either side's end ends both.
async fn carry(program: TcpStream, wire: Arc<Wire>, _busy: watch::Receiver<()>) -> anyhow::Result<()> {
    let server = TcpStream::connect(&wire.server).await?;
    program.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let age = *wire.age.borrow();
    let (from_program, to_program) = program.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_program, to_server, Direction::ToServer, &wire, age),
        pump(from_server, to_program, Direction::ToProgram, &wire, age),
    )?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    wire: &Wire,
    age: u64,
) -> anyhow::Result<()> {
    let mut state = wire.state.subscribe();
    let mut watcher = Watcher::new(direction);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let delay = *wire.delay.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        state.wait_for(|state| *state == State::Open).await?;
        if *wire.age.borrow() != age {
            std::future::pending::<()>().await;
        }

        let mut chunk = &buffer[..read];
        let found = watcher.find(chunk, &mut wire.armed.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((at, held)) = found {
            to.write_all(&chunk[..at]).await?;
            chunk = &chunk[at..];
            held.until_released().await;
        }
        to.write_all(chunk).await?;
    }
}
