//! What all commands share: the parts of the program that they use, the versions that they expect, their outcome, and the errors
//! that any of them can have.

use events::subject::EVENT_MAX;
use events::{ConsistencyToken, Roles};
use service::clock::Clock;
use service::problem::{Kind, Refusal};

use crate::database::{CONCURRENT_CHANGES, CommandDatabase, DatabaseError};
use crate::metrics::CommandMetrics;
use crate::outbox::Wake;

/// What every command uses besides its input.
#[derive(Debug, Clone)]
pub struct CommandApp {
    pub database: CommandDatabase,
    pub clock: Clock,
    /// Wakes the relay after each commit.
    pub wake: Wake,
    pub metrics: CommandMetrics,
}

/// The versions of an aggregate that its author has seen and means to change. A transport reads them from what it has: `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Any,
    Versions(Vec<u64>),
}

impl Expected {
    /// For a command that must not change an aggregate that its author has not seen.
    pub fn required(expected: Option<Self>) -> Result<Self, CommandError> {
        expected.ok_or(CommandError::PreconditionMissing)
    }

    /// Refuses if the aggregate is not at a version that is expected.
    pub fn check(&self, current: u64) -> Result<(), CommandError> {
        match self {
            Self::Versions(versions) if !versions.contains(&current) => Err(CommandError::VersionMismatch { current }),
            Self::Any | Self::Versions(_) => Ok(()),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandOutcome<T> {
    /// What the command answers: the aggregate as the command left it, or something else.
    pub answer: T,
    /// Names what was written, so that a query can wait for it.
    pub token: ConsistencyToken,
    pub effect: Effect,
}

/// Whether a command changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Written,
    /// Everything was already as the command wanted it.
    Unchanged,
    /// The command was done before under the same idempotency key, and this is the answer that it had.
    Replayed,
}

impl<T> CommandOutcome<T> {
    pub fn new(answer: T, token: ConsistencyToken, effect: Effect) -> Self {
        Self { answer, token, effect }
    }

    pub fn is_written(&self) -> bool {
        self.effect == Effect::Written
    }
}

/// Why a command was not done, whichever command it is. Commands add errors of their own.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("Not found, or you may not see it")]
    NotFound,
    #[error("This needs one of the roles {0}")]
    RoleMissing(Roles),
    #[error("You are not the seller of this listing")]
    NotYours,
    #[error("If-Match is required here: the ETag of the listing as you read it, or *")]
    PreconditionMissing,
    #[error("It is at version {current} now")]
    VersionMismatch { current: u64 },
    #[error("The listing would exceed the limit of {EVENT_MAX} bytes")]
    TooLarge,
    /// A name that must be unique is taken. The text says which.
    #[error("{0}")]
    Taken(&'static str),
    #[error("A request with this Idempotency-Key is still running")]
    KeyInProgress,
    #[error("This Idempotency-Key was used with another body")]
    KeyMismatch,
    /// The variants of a listing changed between the lock of its stock and its own lock. The command starts again.
    #[error("{CONCURRENT_CHANGES}")]
    VariantsChanged,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl CommandError {
    /// The same error of a statement that commits by itself: if the connection broke, nobody knows whether it was done.
    #[must_use]
    pub fn while_committing(self) -> Self {
        if let Self::Database(error) = self { Self::Database(error.while_committing()) } else { self }
    }
}

impl From<sqlx::Error> for CommandError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

impl Refusal for CommandError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::RoleMissing(_) | Self::NotYours => Kind::Forbidden,
            Self::PreconditionMissing => Kind::PreconditionRequired,
            Self::VersionMismatch { .. } => Kind::VersionMismatch,
            Self::TooLarge => Kind::TooLarge,
            Self::Taken(_) => Kind::Conflict,
            Self::KeyInProgress => Kind::InProgress,
            Self::KeyMismatch => Kind::IdempotencyMismatch,
            Self::VariantsChanged => Kind::Unavailable,
            Self::Database(error) => error.kind(),
        }
    }
}

/// An error that may be a race lost to another command; then the command may succeed if it starts again.
pub trait LostRace {
    /// Whether another command was faster.
    fn is_lost_race(&self) -> bool;
}

impl LostRace for CommandError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Database(DatabaseError::LostRace(_)) | Self::VariantsChanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_meant_for_the_versions_that_it_names() {
        assert!(Expected::Any.check(7).is_ok());
        assert!(Expected::Versions(vec![6, 7]).check(7).is_ok());
        for versions in [vec![], vec![6, 8]] {
            let refused = Expected::Versions(versions).check(7);
            assert!(matches!(refused, Err(CommandError::VersionMismatch { current: 7 })), "{refused:?}");
        }
        assert!(matches!(Expected::required(None), Err(CommandError::PreconditionMissing)));
    }
}
