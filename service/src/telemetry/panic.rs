//! Panics are logged like everything else.

use std::panic;

use tracing::error;

/// From now on a panic is one log line, in the format of all the others, with the trace that it happened in.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a value that is no text");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(panic.location = location, panic.message = message, "Panicked at {location}: {message}");
    }));
}
