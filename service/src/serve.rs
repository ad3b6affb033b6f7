//! Serves HTTP so that a stop loses no request: first `/ready` fails, then no new connection is taken, then open requests finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::lifecycle::{Lifecycle, LongLived};

/// How long a connection may wait for the head of a request, also between two requests. Longer than clients keep idle connections
/// (reqwest: 90 s), so that the client closes them: if we did, it could be sending the next request at that moment.
const HEAD_WITHIN: Duration = Duration::from_secs(100);

/// How long a new connection that has sent nothing is kept open during a stop. Its first request may be on the way.
const SILENT_WITHIN: Duration = Duration::from_secs(1);

/// The most connections that wait in the queue of the socket to be accepted (tokio listens with 1024).
const QUEUE: usize = 1024;

/// Pause after a failed accept. The usual reason is that no file descriptor is left, until other connections are closed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long the two phases of a drain take.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Connections are still accepted for this time, so that load balancers see the failing `/ready` first.
    pub probe_period: Duration,
    /// How long open requests may take after that.
    pub grace: Duration,
}

impl Default for Drain {
    /// Together well below the 30 s in which a process has to end: other tasks and traces need the rest.
    fn default() -> Self {
        Self { probe_period: Duration::from_millis(500), grace: Duration::from_secs(22) }
    }
}

/// Binds the public port and logs its address. An error names `variable`, which sets the port.
pub async fn bind(variable: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    listen("http", "HTTP", variable, addr).await
}

/// Binds a port and logs its address. With port 0, this log line is the only place where the port is shown; its fields are part of
/// the contract.
pub(crate) async fn listen(listener: &'static str, name: &str, variable: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}; {variable} moves it"))?;
    let addr = bound.local_addr()?;
    info!(listener, addr = %addr, "{name} port listens on {addr}");
    Ok(bound)
}

/// Serves until `stop` is cancelled, then drains. Requests that still run after the grace are cut off, which is an error.
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
    // Load balancers route requests to us until their next readiness probe.
    connections.accept_until(&listener, tokio::time::sleep(drain.probe_period)).await;
    connections.finish(listener, drain.grace, &lifecycle).await
}

/// As [`serve`], for a port that is behind no load balancer.
pub(crate) async fn serve_plainly(
    listener: TcpListener,
    routes: Router,
    grace: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let connections = Connections::new(routes);
    connections.accept_until(&listener, stop.cancelled()).await;
    connections.finish(listener, grace, &Lifecycle::default()).await
}

/// The open connections of one server. Each has a receiver of `ending` as long as it is open, and finishes when a value is sent.
struct Connections {
    routes: Router,
    ending: watch::Sender<()>,
    /// Its receivers count the connections whose last answer was a [`LongLived`] one.
    long_lived: watch::Sender<()>,
}

impl Connections {
    fn new(routes: Router) -> Self {
        Self { routes, ending: watch::Sender::new(()), long_lived: watch::Sender::new(()) }
    }

    fn begin(&self, stream: TcpStream) {
        tokio::spawn(serve_connection(stream, self.routes.clone(), self.ending.subscribe(), self.long_lived.clone()));
    }

    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                // The end is checked first: under load there is always one more connection to accept.
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

    /// Takes the connections that wait in the queue of the socket, because a stop must not lose their requests. Then closes the
    /// listener, ends long-lived answers, and waits until all connections have finished.
    async fn finish(self, listener: TcpListener, grace: Duration, lifecycle: &Lifecycle) -> anyhow::Result<()> {
        for _ in 0..QUEUE {
            match unconstrained(listener.accept()).now_or_never() {
                Some(Ok((stream, _))) => self.begin(stream),
                Some(Err(_)) | None => break,
            }
        }
        drop(listener);
        let _ = self.ending.send(());
        // Not before the listener is closed: their clients connect again at once, and must reach another process.
        lifecycle.end_long_lived();
        if timeout(grace, self.ending.closed()).await.is_ok() {
            return Ok(());
        }
        let long_lived = self.long_lived.receiver_count();
        match self.ending.receiver_count().saturating_sub(long_lived) {
            0 => {
                info!(connections = long_lived, "Cut off {long_lived} long-lived answers whose clients did not read to the end");
                Ok(())
            }
            hung => anyhow::bail!("{hung} connections were cut off {grace:?} after the stop"),
        }
    }
}

/// Serves one connection, from its first request to its last.
async fn serve_connection(stream: TcpStream, routes: Router, mut ending: watch::Receiver<()>, long_lived: watch::Sender<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "Cannot set TCP_NODELAY: {error}");
    }
    let (requested, mut was_requested) = watch::channel(false);
    let silent = AtomicBool::new(true);
    let is_long_lived = Arc::new(Mutex::new(None));
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        if silent.swap(false, Ordering::Relaxed) {
            requested.send_replace(true);
        }
        // A router is always ready.
        let answering = routes.clone().call(request);
        let (is_long_lived, counted) = (Arc::clone(&is_long_lived), long_lived.clone());
        async move {
            let response = answering.await?;
            let counted = response.extensions().get::<LongLived>().map(|_| counted.subscribe());
            *is_long_lived.lock().unwrap_or_else(PoisonError::into_inner) = counted;
            Ok::<_, Infallible>(response)
        }
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
    // On a graceful shutdown, hyper closes a connection at once that has sent nothing, even if its request is on the way.
    tokio::select! {
        outcome = connection.as_mut() => return ended(outcome),
        first = timeout(SILENT_WITHIN, was_requested.wait_for(|requested| *requested)) => if first.is_err() {
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
