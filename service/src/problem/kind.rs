//! The kinds of problem, and the HTTP status, `type`, title and advice of each.

use http::StatusCode;

/// What went wrong, as far as a client must act on it. A kind is added only when clients must act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Malformed,
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    VersionMismatch,
    PreconditionRequired,
    TooLarge,
    UnsupportedMediaType,
    RateLimited,
    IdempotencyMismatch,
    InProgress,
    Timeout,
    Unavailable,
    Overloaded,
    Internal,
    /// A problem of the program's own domain, which the program declares.
    Custom(&'static ProblemType),
}

/// A problem type that a program declares in addition to the kinds of this crate. Give it to
/// [`pages`](super::pages) too, so that its page is served.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ProblemType {
    /// The problem's `type`: `/problems/` and the slug.
    pub uri: &'static str,
    /// The kind that it refines. Every transport treats it as that kind.
    pub refines: &'static Kind,
    pub title: &'static str,
    /// What a client can do about it.
    pub advice: &'static str,
}

impl Kind {
    /// The kinds that every program has.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::VersionMismatch,
        Self::PreconditionRequired,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::IdempotencyMismatch,
        Self::InProgress,
        Self::Timeout,
        Self::Unavailable,
        Self::Overloaded,
        Self::Internal,
    ];

    #[must_use]
    pub fn http_status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Invalid | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict | Self::InProgress => StatusCode::CONFLICT,
            Self::VersionMismatch => StatusCode::PRECONDITION_FAILED,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Custom(problem_type) => problem_type.refines.http_status(),
        }
    }

    /// The last segment of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.uri().trim_start_matches("/problems/")
    }

    /// The problem's `type`: a page that the server serves.
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::Malformed => "/problems/malformed",
            Self::Invalid => "/problems/invalid",
            Self::Unauthenticated => "/problems/unauthenticated",
            Self::Forbidden => "/problems/forbidden",
            Self::NotFound => "/problems/not-found",
            Self::MethodNotAllowed => "/problems/method-not-allowed",
            Self::Conflict => "/problems/conflict",
            Self::VersionMismatch => "/problems/version-mismatch",
            Self::PreconditionRequired => "/problems/precondition-required",
            Self::TooLarge => "/problems/too-large",
            Self::UnsupportedMediaType => "/problems/unsupported-media-type",
            Self::RateLimited => "/problems/rate-limited",
            Self::IdempotencyMismatch => "/problems/idempotency-mismatch",
            Self::InProgress => "/problems/in-progress",
            Self::Timeout => "/problems/timeout",
            Self::Unavailable => "/problems/unavailable",
            Self::Overloaded => "/problems/overloaded",
            Self::Internal => "/problems/internal",
            Self::Custom(problem_type) => problem_type.uri,
        }
    }

    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request cannot be read",
            Self::Invalid => "The request breaks a rule",
            Self::Unauthenticated => "The request is not authenticated",
            Self::Forbidden => "The caller may not do this",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::Conflict => "The current state does not allow this",
            Self::VersionMismatch => "The resource has changed since it was read",
            Self::PreconditionRequired => "If-Match is required",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "The content type is not supported here",
            Self::RateLimited => "Too many requests",
            Self::IdempotencyMismatch => "The idempotency key was used for another request",
            Self::InProgress => "The same request is still running",
            Self::Timeout => "The deadline passed, the outcome is unknown",
            Self::Unavailable => "Not available at the moment",
            Self::Overloaded => "Too busy at the moment",
            Self::Internal => "Something went wrong on our side",
            Self::Custom(problem_type) => problem_type.title,
        }
    }

    /// What a client can do about it. The problem's page shows it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Malformed => {
                "The JSON, the query, the path, a cursor or a header could not be read. The detail says which and why. \
                 Sending the same again gives the same answer."
            }
            Self::Invalid => {
                "The request was understood, but breaks the rules listed in errors, each with a JSON pointer into the body. \
                 Correct them all and send it again."
            }
            Self::Unauthenticated => {
                "Send Authorization: Bearer with a token that has not expired and was signed by a key of this service."
            }
            Self::Forbidden => {
                "The token is good, but it does not permit this. Use one that has the role, or that owns the resource."
            }
            Self::NotFound => "There is nothing at this address, or the caller may not see it.",
            Self::MethodNotAllowed => "The Allow header lists the methods that are allowed here.",
            Self::Conflict => "Read the resource again: its state has to change before this can be done.",
            Self::VersionMismatch => {
                "Somebody changed the resource first. Read it again, and repeat the change with its new ETag in If-Match."
            }
            Self::PreconditionRequired => {
                "Send If-Match with the ETag that was read, so that no other change is overwritten by mistake; or * to overwrite any version."
            }
            Self::TooLarge => "The body, or one line of it, is longer than this route accepts. Split it into several requests.",
            Self::UnsupportedMediaType => "Send one of the content types that the detail lists.",
            Self::RateLimited => "Wait for as many seconds as Retry-After says.",
            Self::IdempotencyMismatch => "An Idempotency-Key names one request. Use a new key for a new request.",
            Self::InProgress => {
                "A request with this Idempotency-Key has not ended yet. Repeat it a little later to get its answer."
            }
            Self::Timeout => {
                "It may or may not have been done. Read the resource, or repeat the request with the same Idempotency-Key."
            }
            Self::Unavailable => {
                "Something that this request needs is down. Repeat it after as many seconds as Retry-After says."
            }
            Self::Overloaded => {
                "The server has more requests than it can answer. Repeat it after as many seconds as Retry-After says."
            }
            Self::Internal => {
                "The failure is on our side, and our logs have it under the trace id. Repeating the request may help."
            }
            Self::Custom(problem_type) => problem_type.advice,
        }
    }

    pub(super) fn challenge(self) -> Option<&'static str> {
        (self == Self::Unauthenticated).then_some("Bearer")
    }

    pub(super) fn asks_to_retry(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Overloaded)
    }

    /// The kind nearest to a plain status; `None` if the status is not an error.
    pub(super) fn of_status(status: StatusCode) -> Option<Self> {
        let plain = [
            Self::Malformed,
            Self::Invalid,
            Self::Unauthenticated,
            Self::Forbidden,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::Conflict,
            Self::VersionMismatch,
            Self::PreconditionRequired,
            Self::TooLarge,
            Self::UnsupportedMediaType,
            Self::RateLimited,
            Self::Timeout,
            Self::Unavailable,
        ];
        plain.into_iter().find(|kind| kind.http_status() == status).or_else(|| {
            if status.is_client_error() { Some(Self::Malformed) } else { status.is_server_error().then_some(Self::Internal) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_status_that_the_contract_gives_it() {
        let table: Vec<(&str, u16)> = Kind::ALL.iter().map(|kind| (kind.slug(), kind.http_status().as_u16())).collect();
        assert_eq!(
            table,
            [
                ("malformed", 400),
                ("invalid", 422),
                ("unauthenticated", 401),
                ("forbidden", 403),
                ("not-found", 404),
                ("method-not-allowed", 405),
                ("conflict", 409),
                ("version-mismatch", 412),
                ("precondition-required", 428),
                ("too-large", 413),
                ("unsupported-media-type", 415),
                ("rate-limited", 429),
                ("idempotency-mismatch", 422),
                ("in-progress", 409),
                ("timeout", 504),
                ("unavailable", 503),
                ("overloaded", 503),
                ("internal", 500),
            ]
        );
    }

    #[test]
    fn a_program_declares_problem_types_of_its_own() {
        static OUT_OF_PAPER: ProblemType = ProblemType {
            uri: "/problems/out-of-paper",
            refines: &Kind::Conflict,
            title: "There is no paper left",
            advice: "Wait until somebody fills the tray.",
        };
        let kind = Kind::Custom(&OUT_OF_PAPER);
        assert_eq!((kind.slug(), kind.http_status(), kind.title()), ("out-of-paper", StatusCode::CONFLICT, OUT_OF_PAPER.title));
        assert_eq!((kind.advice(), kind.challenge(), kind.asks_to_retry()), (OUT_OF_PAPER.advice, None, false));
    }

    #[test]
    fn a_bare_status_becomes_the_nearest_kind() {
        assert_eq!(Kind::of_status(StatusCode::OK), None);
        assert_eq!(Kind::of_status(StatusCode::NOT_MODIFIED), None);
        assert_eq!(Kind::of_status(StatusCode::UNPROCESSABLE_ENTITY), Some(Kind::Invalid));
        assert_eq!(Kind::of_status(StatusCode::CONFLICT), Some(Kind::Conflict));
        assert_eq!(Kind::of_status(StatusCode::NOT_ACCEPTABLE), Some(Kind::Malformed));
        assert_eq!(Kind::of_status(StatusCode::NOT_IMPLEMENTED), Some(Kind::Internal));
    }
}
