//! One listing by its id: through Redis and from the in-process cache, against a bare handler that reads the same key.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acceptance::{Marketplace, Name, until_some};
use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;
use views::listing_page;

use crate::QUIET;
use crate::load::{self, closed_loop};
use crate::stock_up;
use crate::table::Line;

/// The argument that makes this program the bare server.
pub const BARE: &str = "serve-bare";
/// More listings than are asked for within the second that the in-process cache keeps one.
const LISTINGS: u64 = 40_000;
const CLIENTS: usize = 32;
/// Short turns, and many: this machine's speed changes within seconds, and should be the same for all three of a round.
const TURN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 15;
/// Of the answers that should come through Redis, so many may have been kept in the process meanwhile.
const KEPT: f64 = 0.01;

pub async fn measure() -> anyhow::Result<[Line; 2]> {
    let market = Marketplace::builder().setting(Name::QueryApi, "RUST_LOG", QUIET).start().await?;
    let ids = stock_up::with(&market, LISTINGS).await?;
    market.settle_within(Duration::from_mins(5)).await?;
    let query_api = market.query_api()?;
    let address = query_api.address()?;
    let bare = Bare::start(&market.redis.address()).await?;

    let (mut through_redis, mut cached, mut baseline) = (Vec::new(), Vec::new(), Vec::new());
    let mut answers = 0;
    let asked_redis = async || query_api.metric("listings_cache_hits_total", &[("cache_type", "redis")]).await;
    let before = asked_redis().await?.unwrap_or_default();
    for round in 0..ROUNDS {
        let spread = |ids: Vec<String>| move |client: usize, n: u64| one_of(&ids, (client as u64) * 1_250 + n);
        baseline.push(closed_loop(bare.address, CLIENTS, TURN, spread(ids.clone())).await?.rate());
        let seen = closed_loop(address, CLIENTS, TURN, spread(ids.clone())).await?;
        answers += seen.answers;
        through_redis.push(seen.rate());
        let same = ids[..1].to_vec();
        cached.push(closed_loop(address, CLIENTS, TURN, move |_, _| one_of(&same, 0)).await?.rate());
        eprintln!(
            "get, round {round}: bare {:.0}/s; Redis {:.0}/s; cached {:.0}/s",
            baseline[round], through_redis[round], cached[round]
        );
    }
    let asked = asked_redis().await?.unwrap_or_default() - before;
    anyhow::ensure!(asked >= answers as f64 * (1.0 - KEPT), "only {asked} of {answers} answers came through Redis");
    market.discard().await?;
    Ok([
        Line::ratio("GET by id through Redis ÷ bare axum + Redis handler", &through_redis, &baseline, 0.9),
        Line::ratio("GET by id from the in-process cache ÷ the same", &cached, &baseline, 1.2),
    ])
}

fn one_of(ids: &[String], n: u64) -> Vec<u8> {
    load::get(&format!("/api/v1/listings/{}", ids[(n % ids.len() as u64) as usize]), "")
}

/// The bare server, as a process of its own, as query-api is.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    async fn start(redis: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).args([BARE, redis]).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).map(|_| line)
        })
        .await??;
        let address: SocketAddr = line.trim().parse()?;
        until_some("the bare server to answer", async || Ok(tokio::net::TcpStream::connect(address).await.ok())).await?;
        Ok(Self { child, address })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The least that answers a listing: one GET, its bytes as JSON.
pub async fn serve_bare(redis: &str) -> anyhow::Result<()> {
    let connection = redis::Client::open(format!("redis://{redis}"))?.get_multiplexed_async_connection().await?;
    let app = Router::new().route("/api/v1/listings/{id}", get(bare)).with_state(connection);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

async fn bare(State(mut redis): State<MultiplexedConnection>, Path(id): Path<Uuid>) -> impl IntoResponse {
    let page: Vec<u8> = redis.get(listing_page::listing_key(1, id.into())).await.unwrap_or_default();
    let body = page.iter().position(|&byte| byte == b'\n').map_or(0, |head| head + 1);
    ([(CONTENT_TYPE, "application/json")], Bytes::from(page).slice(body..))
}
