//! Believes a token, or says why not.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::caller::{Caller, Roles};
use super::keys::{Found, JwksSource, Keys};
use crate::clock::Clock;

/// A token is a few hundred bytes. Megabytes of it would be hashed at the caller's pleasure.
const TOKEN_LIMIT: usize = 8 * 1024;

/// Checking a signature costs 76 µs, looking it up one. At about 150 bytes each this is a few megabytes.
const REMEMBERED: usize = 20_000;

/// How far the clock of whoever signs may be ahead of ours. A token that has expired is granted nothing.
const CLOCK_AHEAD: TimeDelta = TimeDelta::seconds(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    #[error("the token is not accepted: {0}")]
    Refused(&'static str),
    #[error("no key set was ever had")]
    NoKeys,
}

/// Verifies tokens. Cloning it is cheap; the clones share keys and memory.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: Keys,
    validation: Validation,
    believed: Cache<[u8; 32], Believed>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
struct Believed {
    caller: Caller,
    expires: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    roles: Vec<String>,
    exp: f64,
    nbf: Option<f64>,
}

impl Verifier {
    /// `issuer` and `audience` are checked only if given. The keys are fetched with the first token, or by
    /// [`Verifier::prefetch`]: a program starts without them.
    #[must_use]
    pub fn new(jwks: JwksSource, issuer: Option<&str>, audience: Option<&str>, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times are judged here, by our clock; the rest of what is required is required by `Claims`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = audience.is_some();
        let mut required = vec![];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let believed = Cache::new(REMEMBERED);
        Self(Arc::new(Inner { keys: Keys::new(jwks), validation, believed, clock }))
    }

    /// Reads the keys before the first token comes; failing is logged and does no harm.
    pub async fn prefetch(&self) {
        self.0.keys.fetch().await;
    }

    /// Whether a key set was ever had.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.0.keys.is_empty()
    }

    /// A token that was believed once is believed until it expires.
    pub async fn verify(&self, token: &str) -> Result<Caller, BearerError> {
        if token.len() > TOKEN_LIMIT {
            return Err(BearerError::Refused("it is too long"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(believed) = self.0.believed.get(&digest) {
            if believed.expires <= self.0.clock.now() {
                self.0.believed.remove(&digest);
                return Err(BearerError::Refused("it has expired"));
            }
            return Ok(believed.caller);
        }
        let believed = self.check(token).await?;
        self.0.believed.insert(digest, believed);
        Ok(believed.caller)
    }

    async fn check(&self, token: &str) -> Result<Believed, BearerError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| BearerError::Refused("it is no JWT"))?;
        if header.alg != Algorithm::EdDSA {
            return Err(BearerError::Refused("it is not signed with EdDSA"));
        }
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what is critical must be understood, and we understand none.
            return Err(BearerError::Refused("it has critical headers (crit)"));
        }
        let kid = header.kid.ok_or(BearerError::Refused("it does not name its key (kid)"))?;
        let key = match self.0.keys.find(&kid).await {
            Found::Key(key) => key,
            Found::Unknown => return Err(BearerError::Refused("its key is not known")),
            Found::Nothing => return Err(BearerError::NoKeys),
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.0.validation)
            .map_err(|error| BearerError::Refused(why(&error)))?
            .claims;
        self.judge(&claims)
    }

    fn judge(&self, claims: &Claims) -> Result<Believed, BearerError> {
        let now = self.0.clock.now();
        let expires = moment(claims.exp).ok_or(BearerError::Refused("its exp is no time"))?;
        if expires <= now {
            return Err(BearerError::Refused("it has expired"));
        }
        if let Some(from) = claims.nbf {
            let from = moment(from).ok_or(BearerError::Refused("its nbf is no time"))?;
            if from > now + CLOCK_AHEAD {
                return Err(BearerError::Refused("it is not valid yet"));
            }
        }
        let id = Uuid::try_parse(&claims.sub).map_err(|_| BearerError::Refused("its sub is no uuid"))?;
        let roles = Roles::known(claims.roles.iter().map(String::as_str));
        Ok(Believed { caller: Caller { id, roles }, expires })
    }
}

/// The RFC's numeric date may have a fraction.
fn moment(seconds: f64) -> Option<DateTime<Utc>> {
    /// Beyond it the conversion below would not be exact; it is the year 287396.
    const FURTHEST: f64 = 9e12;
    if !(0.0..FURTHEST).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
    DateTime::from_timestamp_millis((seconds * 1e3) as i64)
}

fn why(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;

    #[expect(clippy::wildcard_enum_match_arm, reason = "what else the library finds wrong makes no difference to a caller")]
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is not right",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
            "a claim is missing or of the wrong type"
        }
        _ => "it is no valid JWT",
    }
}
