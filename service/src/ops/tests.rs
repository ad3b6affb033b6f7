//! The operations port as those who ask it see it: over a socket.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;

use super::*;

struct Running {
    addr: SocketAddr,
    lifecycle: Lifecycle,
    needed: Arc<AtomicBool>,
    optional: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start() -> Running {
    let mut registry = Registry::with_prefix("listings");
    registry.register("things", "Things that happened", Counter::<u64>::default());
    let (needed, optional) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (needs, likes) = (Arc::clone(&needed), Arc::clone(&optional));
    let readiness = move || {
        let check = |name, passes: &AtomicBool| {
            if passes.load(Ordering::Relaxed) { Check::passed(name) } else { Check::failed(name, "away") }
        };
        let report = Report::of(vec![check("database", &needs), check("broker", &likes).optional()]);
        std::future::ready(report)
    };
    let lifecycle = Lifecycle::default();
    let ops = Ops::new(registry, &lifecycle, readiness, || std::future::ready(json!({ "held": false })));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(ops.serve(listener, stop.clone()));
    Running { addr, lifecycle, needed, optional, stop }
}

async fn get(running: &Running, path: &str) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("http://{}{path}", running.addr)).send().await.unwrap()
}

async fn ready(running: &Running) -> (u16, Value) {
    let answer = get(running, "/ready").await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn ready_follows_the_program_from_start_to_drain() {
    let running = start().await;
    let (status, body) = ready(&running).await;
    assert_eq!((status, &body["status"]), (503, &"starting".into()));

    running.lifecycle.started();
    let (status, body) = ready(&running).await;
    assert_eq!((status, &body["status"]), (200, &"ready".into()));
    assert_eq!(body["checks"]["database"], json!({ "status": "passed", "needed": true }));

    running.optional.store(false, Ordering::Relaxed);
    let (status, body) = ready(&running).await;
    assert_eq!((status, &body["status"]), (200, &"degraded".into()));
    assert_eq!(body["checks"]["broker"], json!({ "status": "failed", "needed": false, "detail": "away" }));

    running.needed.store(false, Ordering::Relaxed);
    let (status, body) = ready(&running).await;
    assert_eq!((status, &body["status"]), (503, &"unready".into()));

    running.needed.store(true, Ordering::Relaxed);
    running.lifecycle.drain();
    running.lifecycle.started();
    let (status, body) = ready(&running).await;
    assert_eq!((status, &body["status"]), (503, &"draining".into()), "there is no way back");
}

#[tokio::test]
async fn a_report_that_does_not_come_is_unready() {
    let lifecycle = Lifecycle::default();
    let ops = Ops::new(Registry::default(), &lifecycle, std::future::pending, || std::future::ready(Value::Null));
    lifecycle.started();
    let response = super::ready(State(ops)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn health_status_and_metrics_are_shown_whatever_is_away() {
    let running = start().await;
    running.needed.store(false, Ordering::Relaxed);
    assert_eq!(get(&running, "/health").await.json::<Value>().await.unwrap(), json!({ "status": "healthy" }));
    assert_eq!(get(&running, "/status").await.json::<Value>().await.unwrap(), json!({ "held": false }));
    let metrics = get(&running, "/metrics").await;
    assert_eq!(metrics.headers()[CONTENT_TYPE], OPEN_METRICS);
    let text = metrics.text().await.unwrap();
    assert!(text.contains("listings_things_total 0") && text.ends_with("# EOF\n"), "{text}");
    let missing = get(&running, "/elsewhere").await;
    assert_eq!((missing.status().as_u16(), &missing.headers()[CONTENT_TYPE]), (404, &crate::problem::MEDIA_TYPE));
}

#[tokio::test]
async fn the_healthcheck_says_what_ready_says() {
    let running = start().await;
    let refused = healthcheck(running.addr).await.unwrap_err();
    assert!(refused.to_string().contains("starting"), "{refused}");
    running.lifecycle.started();
    healthcheck(running.addr).await.unwrap();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], running.addr.port()));
    healthcheck(everywhere).await.unwrap();
    assert!(healthcheck(SocketAddr::from(([127, 0, 0, 1], 0))).await.is_err());
}
