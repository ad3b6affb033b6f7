//! Why a command on listings or stock was not done, whichever command it is. Commands add refusals of their own.

use events::subject::EVENT_MAX;
use service::problem::{Kind, Refusal};

use crate::database::Failure;

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("There is no such thing, or it is not for you to see")]
    NotFound,
    #[error("This belongs to somebody else")]
    NotYours,
    #[error("If-Match is required here: the ETag of the listing as you read it, or *")]
    PreconditionMissing,
    #[error("It is at version {current} now")]
    VersionMismatch { current: u64 },
    #[error("With this it would be larger than an event may be ({EVENT_MAX} bytes)")]
    TooLarge,
    #[error("The seller has another listing with this external_id")]
    ExternalIdTaken,
    #[error("A request with this Idempotency-Key is still running")]
    KeyInProgress,
    #[error("This Idempotency-Key was used with another body")]
    KeyMismatch,
    #[error(transparent)]
    Database(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        if matches!(failure, Failure::ExternalIdTaken) { Self::ExternalIdTaken } else { Self::Database(failure) }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Failure::from(error).into()
    }
}

impl Refusal for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::NotYours => Kind::Forbidden,
            Self::PreconditionMissing => Kind::PreconditionRequired,
            Self::VersionMismatch { .. } => Kind::VersionMismatch,
            Self::TooLarge => Kind::TooLarge,
            Self::ExternalIdTaken => Kind::Conflict,
            Self::KeyInProgress => Kind::InProgress,
            Self::KeyMismatch => Kind::IdempotencyMismatch,
            Self::Database(failure) => failure.kind(),
        }
    }
}

/// Lost to another command that was quicker: starting again may well succeed.
pub trait Repeatable {
    fn lost_race(&self) -> bool;
}

impl Repeatable for Refused {
    fn lost_race(&self) -> bool {
        matches!(self, Self::Database(Failure::LostRace(_) | Failure::VariantsChanged))
    }
}
