//! Serves HTTP so that a stop loses no request: unready first, then no new connections, then the rest is finished.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, info, warn};

use crate::lifecycle::Lifecycle;

/// How long a connection may wait for the head of a request, between two of them as well. Longer than callers keep unused
/// connections (reqwest: 90 s), so that they close them and not we, perhaps just as they send the next request.
const HEAD_WITHIN: Duration = Duration::from_secs(100);

/// When we stop, a connection that has not said anything yet may have a request on the way.
const SILENT_WITHIN: Duration = Duration::from_secs(1);

/// More connections than this do not wait in the queue of a socket (tokio listens with 1024).
const QUEUE: usize = 1024;

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
    listen("http", "HTTP", variable, addr).await
}

/// Whoever started the program with port 0 finds the port in this line: its fields are part of the contract.
pub(crate) async fn listen(listener: &'static str, name: &str, variable: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}; {variable} moves it"))?;
    let addr = bound.local_addr()?;
    info!(listener, addr = %addr, "{name} port listens on {addr}");
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
    let connections = Connections::new(routes);
    connections.accept_until(&listener, stop.cancelled()).await;
    lifecycle.drain();
    // Still serving: those who route requests to us have not noticed yet.
    connections.accept_until(&listener, tokio::time::sleep(drain.probe_period)).await;
    connections.finish(listener, drain.grace).await
}

/// As [`serve`], for a port that nobody routes requests to.
pub(crate) async fn serve_plainly(
    listener: TcpListener,
    routes: Router,
    grace: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let connections = Connections::new(routes);
    connections.accept_until(&listener, stop.cancelled()).await;
    connections.finish(listener, grace).await
}

/// The open connections of one server. Each holds a receiver for as long as it lives, and ends when it is sent something.
struct Connections {
    routes: Router,
    ending: watch::Sender<()>,
}

impl Connections {
    fn new(routes: Router) -> Self {
        Self { routes, ending: watch::Sender::new(()) }
    }

    fn begin(&self, stream: TcpStream) {
        tokio::spawn(converse(stream, self.routes.clone(), self.ending.subscribe()));
    }

    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                // The end comes first: under a flood of connections there is always one more to accept.
                biased;
                () = &mut end => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.begin(stream),
                    Err(error) => {
                        warn!(error = %error, "Cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
            }
        }
    }

    /// Whoever is in the queue of the socket already counts as connected: the stop must not lose them. Then nobody else gets
    /// in, and those who are finish.
    async fn finish(self, listener: TcpListener, grace: Duration) -> anyhow::Result<()> {
        for _ in 0..QUEUE {
            match unconstrained(listener.accept()).now_or_never() {
                Some(Ok((stream, _))) => self.begin(stream),
                Some(Err(_)) | None => break,
            }
        }
        drop(listener);
        let _ = self.ending.send(());
        match timeout(grace, self.ending.closed()).await {
            Ok(()) => Ok(()),
            Err(_) => anyhow::bail!("{} connections were cut off {grace:?} after the stop", self.ending.receiver_count()),
        }
    }
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, routes: Router, mut ending: watch::Receiver<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "Cannot set TCP_NODELAY: {error}");
    }
    let (speaks, mut spoken) = watch::channel(false);
    let silent = AtomicBool::new(true);
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        if silent.swap(false, Ordering::Relaxed) {
            speaks.send_replace(true);
        }
        // A router is always ready.
        routes.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);

    tokio::select! {
        outcome = connection.as_mut() => return ended(outcome),
        _ = ending.changed() => {}
    }
    // hyper closes at once what has not said anything yet, with the request that may be on its way.
    tokio::select! {
        outcome = connection.as_mut() => return ended(outcome),
        heard = timeout(SILENT_WITHIN, spoken.wait_for(|spoken| *spoken)) => if heard.is_err() {
            return;
        },
    }
    connection.as_mut().graceful_shutdown();
    ended(connection.await);
}

fn ended(outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        debug!(error = %error, "A connection broke: {error}");
    }
}

#[cfg(test)]
mod tests;
