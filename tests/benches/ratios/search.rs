//! Latency that query-api adds to a search: each search is sent to query-api and, as query-api's own request, to OpenSearch
//! directly, and the medians are compared.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use acceptance::{Marketplace, Name};
use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::load::{self, Connection, quantile};
use crate::stock_up;
use crate::table::{Goal, Line};
use crate::{QUIET, ROUNDS};

const LISTINGS: u64 = 10_000;
/// Number of different searches: more than are sent within the second for which query-api caches an answer.
const SEARCHES: u64 = 1_200;

pub async fn measure() -> anyhow::Result<Line> {
    let recorder = Recorder::start().await?;
    let market = Marketplace::builder()
        .with(Name::QueryApi, 2)
        .setting(Name::QueryApi, "RUST_LOG", QUIET)
        .setting_of(Name::QueryApi, 1, "OPENSEARCH_URL", format!("http://{}", recorder.address))
        .start()
        .await?;
    stock_up::with(&market, LISTINGS).await?;
    market.settle_within(Duration::from_mins(2)).await?;

    // Records the request that query-api sends to OpenSearch for each search.
    let mut recording = Connection::open(market.program(Name::QueryApi, 1)?.address()?).await?;
    let mut searches = Vec::new();
    for n in 0..SEARCHES {
        let ours = load::get(&format!("/api/v1/listings/search?q={}", words(n)), "");
        let (status, body) = recording.exchange(&ours).await?;
        anyhow::ensure!(status == 200, "a search was answered with {status} {}", String::from_utf8_lossy(body));
        if let [(path, body)] = recorder.take().as_slice() {
            searches.push((ours, load::post(path, "", body)));
        }
    }
    anyhow::ensure!(searches.len() as u64 > SEARCHES / 2, "only {} searches were sent as a single request", searches.len());

    let mut query_api = Connection::open(market.query_api()?.address()?).await?;
    let mut opensearch = Connection::open(market.opensearch.address().parse()?).await?;
    // For comparison: the latency that an HTTP proxy and a TCP proxy add on this machine.
    let mut proxy = Connection::open(recorder.address).await?;
    let mut tcp_proxy = Connection::open(tcp_proxy_to(market.opensearch.address().parse()?).await?).await?;
    let (mut added, mut medians) = (Vec::new(), (Vec::new(), Vec::new()));
    for round in 0..=ROUNDS {
        let (mut ours, mut raw, mut forwarded, mut relayed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (n, (through, direct)) in searches.iter().enumerate() {
            // Alternates the order, because the second request finds warm caches.
            if n % 2 == 0 {
                ours.push(timed(&mut query_api, through).await?);
                raw.push(timed(&mut opensearch, direct).await?);
            } else {
                raw.push(timed(&mut opensearch, direct).await?);
                ours.push(timed(&mut query_api, through).await?);
            }
            forwarded.push(timed(&mut proxy, direct).await?);
            relayed.push(timed(&mut tcp_proxy, direct).await?);
        }
        let [ours, raw, forwarded, relayed] = [ours, raw, forwarded, relayed].map(median);
        eprintln!(
            "search, round {round}: {ours:?} through query-api, {raw:?} directly, {forwarded:?} through a bare HTTP proxy, \
             {relayed:?} through a TCP proxy"
        );
        // The first round is a warm-up.
        if round > 0 {
            added.push(ours.saturating_sub(raw));
            medians.0.push(ours);
            medians.1.push(raw);
        }
    }
    market.discard().await?;
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    Ok(Line {
        what: "search: p50 added to raw _search",
        ours: milliseconds(median(medians.0)),
        baseline: milliseconds(median(medians.1)),
        result: median(added).as_secs_f64() * 1e3,
        range: None,
        goal: Goal::AtMostMs(0.3),
    })
}

/// Returns a search for a kind and a brand that [`stock_up::listing`] combines. It has enough hits, because query-api sends a
/// second request to OpenSearch for a search with too few.
fn words(n: u64) -> String {
    let (kind, more) = (n % 10, ["", "+order", "+complete"][(n / 40 % 3) as usize]);
    format!("{}+brand+{}{more}&limit={}", stock_up::KINDS[kind as usize], kind + 10 * (n / 10 % 4), 11 + n / 120)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    quantile(&times, 0.5)
}

/// Starts a TCP proxy to this address, for one connection.
async fn tcp_proxy_to(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await?;
        let mut far = TcpStream::connect(address).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    });
    Ok(port)
}

async fn timed(connection: &mut Connection, request: &[u8]) -> anyhow::Result<Duration> {
    let sent = Instant::now();
    let (status, _) = connection.exchange(request).await?;
    let took = sent.elapsed();
    anyhow::ensure!(status == 200, "a search was answered with {status}");
    Ok(took)
}

/// An HTTP proxy between query-api and OpenSearch that records path and body of each search.
struct Recorder {
    address: SocketAddr,
    requests: RecordedRequests,
}

type RecordedRequests = Arc<Mutex<Vec<(String, String)>>>;

impl Recorder {
    async fn start() -> anyhow::Result<Self> {
        let to = std::env::var("TEST_OPENSEARCH_URL").context("TEST_OPENSEARCH_URL is not set: run `make bench`")?;
        let requests = RecordedRequests::default();
        let app = Router::new().fallback(forward).with_state((
            to.trim_end_matches('/').to_owned(),
            reqwest::Client::new(),
            requests.clone(),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, requests })
    }

    /// Removes and returns the recorded requests.
    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forwards a request to OpenSearch, and records it if it is a search.
async fn forward(State((to, http, requests)): State<(String, reqwest::Client, RecordedRequests)>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    if path.contains("_search") {
        requests.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), String::from_utf8_lossy(&body).into_owned()));
    }
    let mut onward = http.request(parts.method, format!("{to}{path}")).body(body);
    if let Some(content_type) = parts.headers.get("content-type") {
        onward = onward.header("content-type", content_type);
    }
    match onward.send().await {
        Ok(answer) => {
            let (status, content_type) = (answer.status(), answer.headers().get("content-type").cloned());
            let mut response = (status, answer.bytes().await.unwrap_or(Bytes::new())).into_response();
            if let Some(content_type) = content_type {
                response.headers_mut().insert("content-type", content_type);
            }
            response
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
