use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument as _, error, error_span, info, info_span, warn};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Logs of this thread alone, kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn logging(filter: &str) -> (Kept, DefaultGuard) {
    let log = LogArgs {
        rust_log: filter.to_owned(),
        log_format: LogFormat::Json,
        otel_exporter_otlp_endpoint: None,
        otel_service_name: None,
    };
    let kept = Kept::default();
    let provider = trace::provider("test", &log).unwrap();
    let to = kept.clone();
    let subscriber = subscriber(&provider, "test", &log, move || to.clone(), false).unwrap();
    (kept, tracing::subscriber::set_default(subscriber))
}

#[test]
fn a_line_is_an_object_with_its_fields() {
    let (kept, _guard) = logging("info");
    let source = io::Error::other("disk\nfull");
    error!(attempt = 3, took = 0.5, fine = false, level = "mine", thing.id = %7, error = &source as &dyn std::error::Error, "Could not \"write\" {}", 7);

    let [line] = &kept.lines()[..] else { panic!("one line") };
    assert_eq!(line["message"], "Could not \"write\" 7");
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["field.level"], "mine");
    assert_eq!((&line["attempt"], &line["took"], &line["fine"]), (&3.into(), &0.5.into(), &false.into()));
    assert_eq!((&line["thing.id"], &line["error"]), (&"7".into(), &"disk\nfull".into()));
    assert!(line["target"].as_str().unwrap().starts_with("service::telemetry"));
    let timestamp = line["timestamp"].as_str().unwrap();
    assert_eq!((timestamp.len(), timestamp.chars().last()), ("2026-01-01T00:00:00.000000Z".len(), Some('Z')));
    assert!(line.get("trace_id").is_none(), "outside of any span there is no trace");
}

#[tokio::test]
async fn a_line_belongs_to_the_trace_that_caused_it() {
    let (kept, _guard) = logging("info");
    let span = info_span!("request");
    set_parent(&span, Some(&format!("00-{TRACE}-00f067aa0ba902b7-01")));
    let carried = async {
        tokio::task::yield_now().await;
        info!("Outer");
        let inner = info_span!("inner");
        inner.in_scope(|| info!("Inner"));
        current_traceparent()
    }
    .instrument(span)
    .await
    .unwrap();

    let lines = kept.lines();
    assert_eq!((&lines[0]["trace_id"], &lines[1]["trace_id"]), (&TRACE.into(), &TRACE.into()));
    assert_ne!(lines[0]["span_id"], lines[1]["span_id"]);
    assert_eq!(carried, format!("00-{TRACE}-{}-01", lines[0]["span_id"].as_str().unwrap()), "the caller's mark is handed on");
    assert_eq!(current_traceparent(), None);
}

#[test]
fn work_that_nobody_collects_has_its_ids_all_the_same() {
    let (kept, _guard) = logging("info");
    let caused = RequestTrace::ids(Some(&format!("00-{TRACE}-00f067aa0ba902b7-01")));
    let carried = caused.in_scope(|| {
        info!("Outer");
        info_span!("inner").in_scope(|| info!("Inner"));
        current_traceparent().unwrap()
    });
    assert_eq!(caused.in_scope(current_traceparent), Some(carried.clone()), "each part of it has the same");
    assert_eq!(current_traceparent(), None);

    let lines = kept.lines();
    assert_eq!((&lines[0]["trace_id"], &lines[1]["trace_id"]), (&TRACE.into(), &TRACE.into()));
    assert_ne!(lines[0]["span_id"], lines[1]["span_id"]);
    assert_eq!(carried, format!("00-{TRACE}-{}-01", lines[0]["span_id"].as_str().unwrap()), "the caller's mark is handed on");
    assert!(!carried.contains("00f067aa0ba902b7"), "a step of its own");

    let (one, other) = (RequestTrace::ids(None), RequestTrace::ids(Some("garbage")));
    assert_ne!(one.in_scope(current_trace_id), other.in_scope(current_trace_id), "without a cause each begins its own");
    assert!(one.in_scope(current_traceparent).unwrap().ends_with("-00"), "nobody exports it");
}

#[test]
fn a_quiet_log_keeps_its_trace_ids() {
    let (kept, _guard) = logging("warn");
    let (one, other) = (info_span!("request"), error_span!("request"));
    let carried = one.in_scope(|| {
        warn!("Told");
        info!("Not told");
        (current_traceparent().unwrap(), current_trace_id().unwrap())
    });
    other.in_scope(|| warn!("Told"));

    let lines = kept.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["trace_id"].as_str().unwrap(), carried.1);
    assert_ne!(lines[0]["trace_id"], lines[1]["trace_id"], "without a parent each begins its own");
    assert!(carried.0.ends_with("-00"), "nobody exports it: {}", carried.0);
}

#[test]
fn a_traceparent_that_cannot_be_read_begins_a_trace() {
    let (_kept, _guard) = logging("info");
    for sent in
        ["", "garbage", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &format!("ff-{TRACE}-00f067aa0ba902b7-01")]
    {
        let span = info_span!("request");
        set_parent(&span, Some(sent));
        let trace = span.in_scope(current_trace_id).unwrap();
        assert_ne!(trace, TRACE, "{sent:?}");
    }
}

/// Libraries ask before they log (sqlx does for each query). Filters by layer remember the answer for whatever comes next
/// on the thread, which then had no ids.
#[test]
fn asking_whether_something_would_be_logged_changes_nothing() {
    let (kept, _guard) = logging("info,quiet=off");
    for _ in 0..3 {
        assert!(tracing::enabled!(tracing::Level::WARN));
        assert!(!tracing::enabled!(target: "quiet", tracing::Level::WARN));
        let trace = info_span!("request").in_scope(|| {
            info!("Told");
            current_trace_id()
        });
        assert!(trace.is_some());
    }
    assert_eq!(kept.lines().len(), 3);
}
