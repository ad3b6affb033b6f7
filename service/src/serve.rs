//! Serves HTTP so that a stop loses no request: unready first, then no new connections, then the rest is finished.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::ops::Lifecycle;

/// A caller who needs longer than this to send the head of a request is holding a connection, not using it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// After a failed accept (usually: no file descriptors left) others need time to close theirs.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How a server ends.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Long enough for whoever asks `/ready` to notice that no more requests should come.
    pub probe_period: Duration,
    /// How long requests in flight may take after that.
    pub grace: Duration,
}

impl Default for Drain {
    /// Together well below the 30 s in which a process has to end: the rest is for what else it has to finish.
    fn default() -> Self {
        Self { probe_period: Duration::from_millis(500), grace: Duration::from_secs(22) }
    }
}

/// Takes a port for the program's routes and logs where it is. `variable` is the one that moves it.
pub async fn bind(variable: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    listen("http", variable, addr).await
}

pub(crate) async fn listen(listener: &'static str, variable: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}; {variable} moves it"))?;
    let addr = bound.local_addr()?;
    match listener {
        "ops" => info!(listener, addr = %addr, "Operations port listens on {addr}"),
        _ => info!(listener, addr = %addr, "HTTP port listens on {addr}"),
    }
    Ok(bound)
}

/// Serves until told to stop, then drains. Requests still running after the grace are cut off, and that is an error.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    lifecycle: Lifecycle,
    drain: Drain,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // Dropping the sender tells the connections to end; each holds a receiver for as long as it lives.
    let (ending, connections) = watch::channel(());

    accept_until(&listener, &routes, &connections, stop.cancelled()).await;
    lifecycle.drain();
    // Still serving: those who route requests to us have not noticed yet.
    accept_until(&listener, &routes, &connections, tokio::time::sleep(drain.probe_period)).await;
    // Whoever is in the queue of the socket already counts as connected. The stop must not lose them.
    accept_until(&listener, &routes, &connections, std::future::ready(())).await;
    drop(listener);

    drop(connections);
    let open = ending.receiver_count();
    let _ = ending.send(());
    debug!(connections = open, "Stopped accepting, {open} connections are open");
    match timeout_at(Instant::now() + drain.grace, ending.closed()).await {
        Ok(()) => Ok(()),
        Err(_) => {
            anyhow::bail!("{} connections were cut off {} s after the stop", ending.receiver_count(), drain.grace.as_secs())
        }
    }
}

/// Accepts connections until `end`, and then those that are already waiting.
async fn accept_until(listener: &TcpListener, routes: &Router, connections: &watch::Receiver<()>, end: impl Future<Output = ()>) {
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(converse(stream, peer, routes.clone(), connections.clone()));
                }
                Err(error) => {
                    warn!(error = %error, "Cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            () = &mut end => return,
        }
    }
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, peer: SocketAddr, routes: Router, mut ending: watch::Receiver<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "Cannot set TCP_NODELAY: {error}");
    }
    let routes = routes.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(axum::body::Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .with_upgrades();
    tokio::pin!(connection);

    tokio::select! {
        outcome = connection.as_mut() => return ended(outcome),
        _ = ending.changed() => connection.as_mut().graceful_shutdown(),
    }
    ended(connection.await);
}

fn ended(outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        debug!(error = %error, "A connection broke: {error}");
    }
}
