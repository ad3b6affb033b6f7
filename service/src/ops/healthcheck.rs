//! The `healthcheck` subcommand: asks a running process whether it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Above the time that the report itself may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// `GET /ready` at the operations port: `Ok` if ready (degraded included), else what it said.
pub async fn healthcheck(addr: SocketAddr) -> anyhow::Result<()> {
    if addr.port() == 0 {
        bail!("OPS_ADDR has port 0: the healthcheck cannot know which port was taken");
    }
    let url = format!("http://{}/ready", reachable(addr));
    // A proxy for the outside world has nothing to say about a port of this machine.
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
    let answer = client.get(&url).send().await.with_context(|| format!("nothing answers at {url}"))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    if !status.is_success() {
        bail!("not ready ({status}): {body}");
    }
    Ok(())
}

/// Listening on all addresses is not an address to connect to.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, addr.port())
}
