//! Verifies tokens.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::TokenBearer;
use super::keys::{JwksCache, JwksSource, KeyLookup};
use crate::clock::Clock;

/// The longest token that is looked at, in bytes; a usual one has a few hundred. Without a limit a client could make us hash megabytes.
const TOKEN_LIMIT: usize = 8 * 1024;

/// How many verified tokens are cached. Verifying a signature costs 76 µs, a look-up 1 µs. At about 250 bytes each this is 5 MB.
const CACHED_TOKENS: usize = 20_000;

/// How far the signer's clock may be ahead of ours (`nbf`). There is no tolerance for `exp`.
const CLOCK_AHEAD: TimeDelta = TimeDelta::seconds(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    #[error("the token is not accepted: {0}")]
    Refused(&'static str),
    #[error("no key set was read yet")]
    NoKeys,
}

/// Verifies tokens. Cloning it is cheap; the clones share keys and cache.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: JwksCache,
    validation: Validation,
    verified: Cache<[u8; 32], VerifiedToken>,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct VerifiedToken {
    bearer: TokenBearer,
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
        // `judge` checks the times, by our clock. The type `Claims` requires all other claims.
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
        let verified = Cache::new(CACHED_TOKENS);
        Self(Arc::new(Inner { keys: JwksCache::new(jwks), validation, verified, clock }))
    }

    /// Reads the key set before the first token needs it. A failure is logged; the first token tries again.
    pub async fn prefetch(&self) {
        self.0.keys.fetch().await;
    }

    /// Whether a key set was ever read.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.0.keys.is_empty()
    }

    /// Verifies a token. A token that was verified once is accepted from the cache until it expires.
    pub async fn verify(&self, token: &str) -> Result<TokenBearer, BearerError> {
        if token.len() > TOKEN_LIMIT {
            return Err(BearerError::Refused("it is too long"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.0.verified.get(&digest) {
            if verified.expires <= self.0.clock.now() {
                self.0.verified.remove(&digest);
                return Err(BearerError::Refused("it has expired"));
            }
            return Ok(verified.bearer);
        }
        let verified = self.check(token).await?;
        self.0.verified.insert(digest, verified.clone());
        Ok(verified.bearer)
    }

    async fn check(&self, token: &str) -> Result<VerifiedToken, BearerError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| BearerError::Refused("it is not a JWT"))?;
        if header.alg != Algorithm::EdDSA {
            return Err(BearerError::Refused("it is not signed with EdDSA"));
        }
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: a critical header that is not understood makes the token invalid, and we understand none.
            return Err(BearerError::Refused("it has critical headers (crit)"));
        }
        let kid = header.kid.ok_or(BearerError::Refused("it does not name its key (kid)"))?;
        let key = match self.0.keys.find(&kid).await {
            KeyLookup::Key(key) => key,
            KeyLookup::Unknown => return Err(BearerError::Refused("its key is not known")),
            KeyLookup::NoKeySet => return Err(BearerError::NoKeys),
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.0.validation)
            .map_err(|error| BearerError::Refused(why(&error)))?
            .claims;
        self.judge(claims)
    }

    fn judge(&self, claims: Claims) -> Result<VerifiedToken, BearerError> {
        let now = self.0.clock.now();
        let expires = moment(claims.exp).ok_or(BearerError::Refused("its exp is not a time"))?;
        if expires <= now {
            return Err(BearerError::Refused("it has expired"));
        }
        if let Some(from) = claims.nbf {
            let from = moment(from).ok_or(BearerError::Refused("its nbf is not a time"))?;
            if from > now + CLOCK_AHEAD {
                return Err(BearerError::Refused("it is not valid yet"));
            }
        }
        let id = Uuid::try_parse(&claims.sub).map_err(|_| BearerError::Refused("its sub is not a UUID"))?;
        Ok(VerifiedToken { bearer: TokenBearer { id, roles: claims.roles.into() }, expires })
    }
}

/// Converts a numeric date (RFC 7519), which may have a fraction.
fn moment(seconds: f64) -> Option<DateTime<Utc>> {
    /// The year 287396. The conversion below is exact up to it.
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
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
            "a claim is missing or of the wrong type"
        }
        _ => "it is not a valid JWT",
    }
}
