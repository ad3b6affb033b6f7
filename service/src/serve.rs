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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    const QUICK: Drain = Drain { probe_period: Duration::from_millis(100), grace: Duration::from_millis(500) };

    struct Running {
        addr: SocketAddr,
        entered: Arc<Notify>,
        release: Arc<Notify>,
        lifecycle: Lifecycle,
        stop: CancellationToken,
        server: JoinHandle<anyhow::Result<()>>,
    }

    /// A server with one route that waits until it is released.
    async fn start() -> Running {
        let listener = bind("HTTP_ADDR", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (Arc::clone(&entered), Arc::clone(&release));
        let wait = async move || {
            told.notify_one();
            waits.notified().await;
            "done"
        };
        let routes = Router::new().route("/wait", get(wait)).route("/", get(async || "here"));
        let (lifecycle, stop) = (Lifecycle::default(), CancellationToken::new());
        lifecycle.started();
        let server = tokio::spawn(serve(listener, routes, lifecycle.clone(), QUICK, stop.clone()));
        Running { addr, entered, release, lifecycle, stop, server }
    }

    async fn ask(addr: SocketAddr, path: &'static str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_request_in_flight_is_finished_and_new_ones_are_answered_while_draining() {
        let running = start().await;
        let in_flight = tokio::spawn(ask(running.addr, "/wait"));
        running.entered.notified().await;
        running.stop.cancel();
        while !running.lifecycle.is_draining() {
            tokio::task::yield_now().await;
        }
        assert!(ask(running.addr, "/").await.unwrap().ends_with("here"), "probes have not noticed yet");
        running.release.notify_one();
        assert!(in_flight.await.unwrap().unwrap().ends_with("done"));
        running.server.await.unwrap().unwrap();
        assert!(ask(running.addr, "/").await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_stop() {
        let running = start().await;
        let mut idle = TcpStream::connect(running.addr).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        running.stop.cancel();
        running.server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut_off_and_told() {
        let running = start().await;
        let in_flight = tokio::spawn(ask(running.addr, "/wait"));
        running.entered.notified().await;
        running.stop.cancel();
        let error = running.server.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("1 connections were cut off"), "{error}");
        in_flight.abort();
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_variable_that_moves_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = bind("HTTP_ADDR", taken.local_addr().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("HTTP_ADDR"), "{error}");
    }
}
