//! Calls a store with a timeout, and not at all while its circuit breaker is open.

use std::time::Duration;

use service::metrics::Errors;
use service::problem::{Chain, Kind, Refusal};
use tokio::time::timeout;
use tracing::debug;

use crate::breaker::Breaker;

/// A store that may be unavailable.
#[derive(Debug)]
pub struct StoreGuard {
    name: &'static str,
    breaker: Breaker,
    /// `None` if the client has a timeout of its own.
    timeout: Option<Duration>,
    errors: Errors,
}

/// What a failed call says about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The store is unavailable, or unable to answer anyone.
    Outage,
    /// The store answered that it cannot process this call.
    Rejection,
    /// The store canceled a call that took too long. This says nothing about the store: one expensive question must not open the
    /// breaker for everyone.
    Canceled,
}

impl StoreGuard {
    pub fn new(name: &'static str, breaker: Breaker, timeout: Option<Duration>, errors: Errors) -> Self {
        Self { name, breaker, timeout, errors }
    }

    /// Makes a call and tells the breaker how it ended.
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        classify: impl FnOnce(&E) -> FailureClass,
    ) -> Result<T, StoreError>
    where
        E: Into<anyhow::Error>,
    {
        let name = self.name;
        let permit = self.breaker.permit().ok_or(StoreError::Unavailable(name))?;
        let outcome = match self.timeout {
            Some(limit) => timeout(limit, call).await.map_err(|_| limit),
            None => Ok(call.await),
        };
        let failed = match outcome {
            Ok(Ok(answer)) => {
                permit.answered();
                return Ok(answer);
            }
            Ok(Err(error)) => match classify(&error) {
                FailureClass::Rejection => {
                    permit.answered();
                    self.errors.count(name, "refused");
                    return Err(StoreError::Rejected { name, source: error.into() });
                }
                FailureClass::Canceled => {
                    self.errors.count(name, "timeout");
                    return Err(StoreError::Canceled { name, source: error.into() });
                }
                FailureClass::Outage => {
                    self.errors.count(name, "failed");
                    StoreError::Failed { name, source: error.into() }
                }
            },
            Err(limit) => {
                self.errors.count(name, "timeout");
                StoreError::Timeout { name, limit }
            }
        };
        permit.failed();
        debug!(dependency = name, error = %Chain(&failed), "A call failed: {failed}");
        Err(failed)
    }
}

/// Why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The circuit breaker is open.
    #[error("{0} is unavailable")]
    Unavailable(&'static str),
    #[error("{name} is unavailable")]
    Failed { name: &'static str, source: anyhow::Error },
    #[error("{name} did not answer within {} ms", limit.as_millis())]
    Timeout { name: &'static str, limit: Duration },
    #[error("{name} took too long")]
    Canceled { name: &'static str, source: anyhow::Error },
    #[error("{name} rejected the request")]
    Rejected { name: &'static str, source: anyhow::Error },
}

impl Refusal for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) | Self::Failed { .. } | Self::Timeout { .. } | Self::Canceled { .. } => Kind::Unavailable,
            Self::Rejected { .. } => Kind::Internal,
        }
    }
}
