//! A server on a port of its own, stopped in every state that its connections can be in.

use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use http::header::CONNECTION;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::http::{Deadlines, HttpMetrics, wrap};

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
async fn start(drain: Drain) -> Running {
    let listener = bind("HTTP_ADDR", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, waits) = (Arc::clone(&entered), Arc::clone(&release));
    let wait = async move || {
        told.notify_one();
        waits.notified().await;
        "done"
    };
    let (lifecycle, stop) = (Lifecycle::default(), CancellationToken::new());
    let long_lived = lifecycle.long_lived();
    let told = Arc::clone(&entered);
    // An event, and then none, or as many as the client reads.
    let watch = async move |Path(more): Path<bool>| {
        told.notify_one();
        let more = if more { stream::repeat("more ".repeat(10_000)).boxed() } else { stream::pending().boxed() };
        let events = stream::once(async { "first ".to_owned() }).chain(more).take_until(long_lived.ended());
        (long_lived.clone(), Body::from_stream(events.map(Ok::<_, Infallible>)))
    };
    let routes = Router::new().route("/wait", get(wait)).route("/watch/{more}", get(watch)).route("/", get(async || "here"));
    lifecycle.started();
    let server = tokio::spawn(serve(listener, routes, lifecycle.clone(), drain, stop.clone()));
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
    let running = start(QUICK).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_request() {
    const CALLERS: usize = 32;
    let mut registry = Registry::default();
    let (lifecycle, stop) = (Lifecycle::default(), CancellationToken::new());
    let pause = async || tokio::time::sleep(Duration::from_millis(3)).await;
    let routes =
        wrap(Router::new().route("/", get(pause)), HttpMetrics::register(&mut registry), Deadlines::default(), lifecycle.clone());
    let listener = bind("HTTP_ADDR", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let drain = Drain { probe_period: Duration::from_millis(500), grace: Duration::from_secs(5) };
    let server = tokio::spawn(serve(listener, routes, lifecycle, drain, stop.clone()));

    // Half of them keep their connections, half open one for each request.
    let client = |kept| reqwest::Client::builder().no_proxy().pool_max_idle_per_host(kept).build().unwrap();
    let clients = [client(CALLERS), client(0)];
    let callers: Vec<JoinHandle<usize>> = (0..CALLERS)
        .map(|number| {
            let client = clients[number % 2].clone();
            let url = url.clone();
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    let answer = client.get(&url).send().await.expect("a request was lost");
                    answered += usize::from(answer.status().is_success());
                    // As whoever routes requests: there are others to be asked.
                    if answer.headers().contains_key(CONNECTION) {
                        return answered;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.cancel();
    server.await.unwrap().unwrap();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let running = start(QUICK).await;
    let mut idle = TcpStream::connect(running.addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_on_its_way_when_nobody_else_gets_in_is_answered() {
    let running = start(Drain { grace: SILENT_WITHIN * 3, ..QUICK }).await;
    running.stop.cancel();
    while !running.lifecycle.is_draining() {
        tokio::task::yield_now().await;
    }
    let mut late = TcpStream::connect(running.addr).await.unwrap();
    while TcpStream::connect(running.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    late.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("here"), "{answer:?}");
    running.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_connection_does_not_fail_the_stop() {
    let running = start(Drain { grace: SILENT_WITHIN * 3, ..QUICK }).await;
    let silent = TcpStream::connect(running.addr).await.unwrap();
    let mut half = TcpStream::connect(running.addr).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_and_told() {
    let running = start(QUICK).await;
    let in_flight = tokio::spawn(ask(running.addr, "/wait"));
    running.entered.notified().await;
    running.stop.cancel();
    let error = running.server.await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("1 connections were cut off"), "{error}");
    in_flight.abort();
}

#[tokio::test]
async fn a_long_lived_answer_is_ended_and_does_not_fail_the_stop() {
    let running = start(QUICK).await;
    let watching = tokio::spawn(ask(running.addr, "/watch/false"));
    running.entered.notified().await;
    running.stop.cancel();
    let answer = watching.await.unwrap().unwrap();
    assert!(answer.contains("first ") && answer.ends_with("0\r\n\r\n"), "a whole answer: {answer}");
    running.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_long_lived_answer_that_nobody_reads_is_cut_off_without_an_error_and_hides_no_hung_request() {
    for hung in [false, true] {
        let running = start(QUICK).await;
        let mut unread = TcpStream::connect(running.addr).await.unwrap();
        unread.write_all(b"GET /watch/true HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        running.entered.notified().await;
        if hung {
            tokio::spawn(ask(running.addr, "/wait"));
            running.entered.notified().await;
        }
        running.stop.cancel();
        let failure = running.server.await.unwrap().err().map(|error| error.to_string());
        assert_eq!(failure.is_some_and(|text| text.starts_with("1 connections were cut off")), hung);
    }
}

#[tokio::test]
async fn a_taken_port_is_told_with_the_variable_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = bind("HTTP_ADDR", taken.local_addr().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("HTTP_ADDR"), "{error}");
}
