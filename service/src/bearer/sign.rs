//! Signs tokens with a private key, and shows the public key.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::JwksSource;
use crate::clock::Clock;

/// Signs tokens with one Ed25519 key.
pub struct Signer {
    key: EncodingKey,
    public: Jwk,
    kid: String,
    issuer: Option<String>,
    audience: Option<String>,
    clock: Clock,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: Uuid,
    roles: Vec<&'a str>,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

impl Signer {
    /// Reads a PKCS#8 PEM file, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn read(path: &Path, issuer: Option<&str>, audience: Option<&str>, clock: Clock) -> anyhow::Result<Self> {
        let pem = fs::read(path).with_context(|| format!("JWT_PRIVATE_KEY_FILE: cannot read {}", path.display()))?;
        Self::from_pem(&pem, issuer, audience, clock).with_context(|| format!("JWT_PRIVATE_KEY_FILE: {}", path.display()))
    }

    pub fn from_pem(pem: &[u8], issuer: Option<&str>, audience: Option<&str>, clock: Clock) -> anyhow::Result<Self> {
        // The error is dropped: it could quote the key.
        let key = EncodingKey::from_ed_pem(pem).ok().context("this is no Ed25519 key in PKCS#8 PEM form")?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::EdDSA).ok().context("the key has no public half")?;
        let kid = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(kid.clone());
        public.common.key_algorithm = Some(KeyAlgorithm::EdDSA);
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, public, kid, issuer: issuer.map(str::to_owned), audience: audience.map(str::to_owned), clock })
    }

    /// Signs a token for `sub` with these role names, valid for `ttl` from now.
    pub fn mint<'a>(&self, sub: Uuid, roles: impl IntoIterator<Item = &'a str>, ttl: Duration) -> anyhow::Result<String> {
        let iat = self.clock.now().timestamp();
        let ttl = i64::try_from(ttl.as_secs()).ok().filter(|ttl| *ttl > 0).context("a token lives at least a second")?;
        let exp = iat.checked_add(ttl).context("a token cannot live that long")?;
        let (iss, aud) = (self.issuer.as_deref(), self.audience.as_deref());
        let claims = Claims { sub, roles: roles.into_iter().collect(), iat, exp, iss, aud };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }

    /// What `/.well-known/jwks.json` shows.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.public] })
    }

    /// For a program that verifies its own tokens.
    #[must_use]
    pub fn source(&self) -> JwksSource {
        JwksSource::Known(self.jwks())
    }
}
