//! Formats a log event as one JSON object on one line.

use std::fmt;

use chrono::SecondsFormat;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::trace;
use crate::clock::Clock;

/// `timestamp level message target`, the event's fields, `trace_id span_id`.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);

        let mut line = Line::default();
        line.put("timestamp", &Clock::System.now().to_rfc3339_opts(SecondsFormat::Micros, true));
        line.put("level", event.metadata().level().as_str());
        line.put("message", &fields.message);
        line.put("target", event.metadata().target());
        line.append(&fields.others);
        if let Some(ids) = trace::current() {
            line.put("trace_id", &ids.trace_id().to_string());
            line.put("span_id", &ids.span_id().to_string());
        }
        writeln!(writer, "{{{}}}", line.text)
    }
}

/// The inside of a JSON object.
#[derive(Default)]
struct Line {
    text: String,
}

impl Line {
    fn append(&mut self, other: &Self) {
        if !other.text.is_empty() {
            self.text.push(',');
            self.text.push_str(&other.text);
        }
    }

    fn put<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        // Neither a name nor a value can fail to be JSON. If one did, a line without it would be better than none.
        if let (Ok(name), Ok(value)) = (serde_json::to_string(name), serde_json::to_string(value)) {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            self.text.push_str(&name);
            self.text.push(':');
            self.text.push_str(&value);
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Line,
}

impl Fields {
    fn put<T: Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        match field.name() {
            // These names are the line's own. A name that occurs twice would be ambiguous.
            own @ ("timestamp" | "level" | "target" | "trace_id" | "span_id") => self.others.put(&format!("field.{own}"), value),
            name => self.others.put(name, value),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, &crate::problem::Chain(value).to_string());
    }
}
