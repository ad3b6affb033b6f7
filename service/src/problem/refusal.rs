//! Turns an error into a problem. Transports know only its kind.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::{Fault, Kind, Problem};

/// An error that can be answered. Its `Display` is the problem's detail and must not show its source.
///
/// With `impl Refusal for ReserveError`, a handler can use `?`.
pub trait Refusal: Error {
    fn kind(&self) -> Kind;

    /// All faults of the body.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// When a retry makes sense, if a better time than the default is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl<E: Refusal> From<E> for Problem {
    /// Logs an internal failure; no other place does. The request's span has the trace id.
    fn from(refusal: E) -> Self {
        let kind = refusal.kind();
        if kind == Kind::Internal {
            tracing::error!(error = %Chain(&refusal), "A request failed: {refusal}");
            return Self::internal();
        }
        if matches!(kind, Kind::Unavailable | Kind::Timeout) {
            tracing::warn!(error = %Chain(&refusal), "A request could not be served: {refusal}");
        }
        let faults = refusal.faults();
        let problem = if kind == Kind::Invalid && !faults.is_empty() {
            Self::invalid(faults)
        } else {
            Self::new(kind, refusal.to_string()).with_errors(faults)
        };
        match refusal.retry_after() {
            Some(after) => problem.with_retry_after(after),
            None => problem,
        }
    }
}

/// Formats an error with all its sources, for logs.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum BookingError {
        #[error("no room {0}")]
        NoRoom(u32),
        #[error("two rules are broken")]
        Rules,
        #[error("booking failed")]
        Store(#[source] std::io::Error),
    }

    impl Refusal for BookingError {
        fn kind(&self) -> Kind {
            match self {
                Self::NoRoom(_) => Kind::NotFound,
                Self::Rules => Kind::Invalid,
                Self::Store(_) => Kind::Internal,
            }
        }

        fn faults(&self) -> Vec<Fault> {
            match self {
                Self::Rules => vec![Fault::new("/from", "is in the past"), Fault::new("/to", "is before from")],
                Self::NoRoom(_) | Self::Store(_) => Vec::new(),
            }
        }
    }

    #[test]
    fn a_refusal_tells_its_reason() {
        let problem = Problem::from(BookingError::NoRoom(7));
        assert_eq!((problem.kind, &*problem.detail), (Kind::NotFound, "no room 7"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let problem = Problem::from(BookingError::Rules);
        assert_eq!(problem.errors.len(), 2);
    }

    #[test]
    fn what_failed_inside_is_not_shown() {
        let error = BookingError::Store(std::io::Error::other("password is hunter2"));
        assert_eq!(Chain(&error).to_string(), "booking failed: password is hunter2");

        let problem = Problem::from(error);
        let shown = serde_json::to_string(&problem).unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("booking"), "{shown}");
    }
}
