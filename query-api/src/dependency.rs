//! How a store is asked: no longer than it may take, and not at all while its breaker is open.

use std::time::Duration;

use service::metrics::Errors;
use service::problem::{Kind, Refusal};
use tokio::time::timeout;
use tracing::debug;

use crate::breaker::Breaker;

/// A store that may be away.
#[derive(Debug)]
pub struct Dependency {
    name: &'static str,
    breaker: Breaker,
    /// `None` if its client keeps a bound of its own.
    within: Option<Duration>,
    errors: Errors,
}

/// What a store's failure says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is away, or in no state to answer anyone.
    Outage,
    /// It answered; it could not make sense of the question.
    Refusal,
    /// It ended a question that took it too long, which says nothing about it: one caller's hard question must not close it
    /// for everyone.
    CutShort,
}

impl Dependency {
    #[must_use]
    pub fn new(name: &'static str, breaker: Breaker, within: Option<Duration>, errors: Errors) -> Self {
        Self { name, breaker, within, errors }
    }

    /// Asks, and judges the breaker by the outcome.
    pub async fn ask<T, E>(
        &self,
        question: impl Future<Output = Result<T, E>>,
        verdict: impl FnOnce(&E) -> Verdict,
    ) -> Result<T, Unanswered>
    where
        E: Into<anyhow::Error>,
    {
        let permit = self.breaker.permit().ok_or(Unanswered::Away(self.name))?;
        let outcome = match self.within {
            Some(within) => timeout(within, question).await.map_err(|_| within),
            None => Ok(question.await),
        };
        let failed = match outcome {
            Ok(Ok(answer)) => {
                permit.answered();
                return Ok(answer);
            }
            Ok(Err(error)) => match verdict(&error) {
                Verdict::Refusal => {
                    permit.answered();
                    self.errors.count(self.name, "refused");
                    return Err(Unanswered::Refused { name: self.name, source: error.into() });
                }
                Verdict::CutShort => {
                    self.errors.count(self.name, "timeout");
                    return Err(Unanswered::CutShort { name: self.name, source: error.into() });
                }
                Verdict::Outage => {
                    self.errors.count(self.name, "failed");
                    Unanswered::Failed { name: self.name, source: error.into() }
                }
            },
            Err(within) => {
                self.errors.count(self.name, "timeout");
                Unanswered::Late { name: self.name, within }
            }
        };
        permit.failed();
        debug!(dependency = self.name, error = %service::problem::Chain(&failed), "A question was not answered: {failed}");
        Err(failed)
    }
}

/// Why a store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("{0} is away")]
    Away(&'static str),
    #[error("{name} is away")]
    Failed { name: &'static str, source: anyhow::Error },
    #[error("{name} did not answer within {} ms", within.as_millis())]
    Late { name: &'static str, within: Duration },
    #[error("{name} took too long")]
    CutShort { name: &'static str, source: anyhow::Error },
    #[error("{name} refused the question")]
    Refused { name: &'static str, source: anyhow::Error },
}

impl Refusal for Unanswered {
    fn kind(&self) -> Kind {
        match self {
            Self::Away(_) | Self::Failed { .. } | Self::Late { .. } | Self::CutShort { .. } => Kind::Unavailable,
            Self::Refused { .. } => Kind::Internal,
        }
    }
}
