//! The phase a program is in, and the answers that must be ended before it can stop.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use axum::response::{IntoResponseParts, ResponseParts};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Started,
    Draining,
}

/// The phase of the program. Clones share it: the bootstrap and the servers set it; readiness and the HTTP stack read it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    stop: OnceLock<CancellationToken>,
    /// Cancelled when long-lived answers have to end.
    end_long_lived: CancellationToken,
}

const STARTING: u8 = 0;
const STARTED: u8 = 1;
const DRAINING: u8 = 2;

impl Lifecycle {
    /// Sets the phase to started: all tasks run. Does nothing while the program drains.
    pub fn started(&self) {
        let _ = self.0.phase.compare_exchange(STARTING, STARTED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sets the phase to draining, for good.
    pub fn drain(&self) {
        self.0.phase.store(DRAINING, Ordering::Release);
    }

    /// The phase is draining from the moment this token is cancelled. Only the first token counts.
    pub fn follow(&self, stop: &CancellationToken) {
        let _ = self.0.stop.set(stop.clone());
    }

    /// For an answer that has no end of its own.
    #[must_use]
    pub fn long_lived(&self) -> LongLived {
        LongLived { end: self.0.end_long_lived.clone() }
    }

    pub(crate) fn end_long_lived(&self) {
        self.0.end_long_lived.cancel();
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.0.stop.get().is_some_and(CancellationToken::is_cancelled) {
            return Phase::Draining;
        }
        match self.0.phase.load(Ordering::Acquire) {
            STARTING => Phase::Starting,
            STARTED => Phase::Started,
            _ => Phase::Draining,
        }
    }
}

/// Marks an answer that has no end of its own, such as server-sent events. The handler ends it when [`LongLived::ended`] resolves, which
/// is when the server takes no more connections. An answer that does not end by then, because its client does not read, is cut off
/// without an error: unlike an ordinary request, it leaves no work undone.
///
/// ```
/// use axum::body::Body;
/// use axum::response::IntoResponse;
/// use futures_util::{Stream, StreamExt as _};
/// use service::lifecycle::Lifecycle;
///
/// fn watch(lifecycle: &Lifecycle, events: impl Stream<Item = std::io::Result<String>> + Send + 'static) -> impl IntoResponse {
///     let answer = lifecycle.long_lived();
///     let body = Body::from_stream(events.take_until(answer.ended()));
///     (answer, body)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct LongLived {
    end: CancellationToken,
}

impl LongLived {
    /// Resolves when the answer has to end.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.end.clone().cancelled_owned()
    }
}

impl IntoResponseParts for LongLived {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_is_followed_means_draining() {
        let (lifecycle, stop) = (Lifecycle::default(), CancellationToken::new());
        lifecycle.follow(&stop);
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.started();
        assert_eq!(lifecycle.phase(), Phase::Started);
        stop.cancel();
        assert!(lifecycle.clone().is_draining());
        lifecycle.started();
        assert!(lifecycle.is_draining());
    }
}
