//! The Ed25519 key that signs a scenario's tokens, and the key files that the programs read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

/// PKCS#8 header of an Ed25519 key; the 32 key bytes follow it.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const KEY_ID: &str = "scenario";
/// Lifetime of a token in seconds, longer than any scenario runs.
const TOKEN_LIFETIME: u64 = 3600;

/// The signing key of one scenario.
pub struct Keys {
    signing: EncodingKey,
    pub(crate) private_key_file: PathBuf,
    pub(crate) jwks_file: PathBuf,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("jwks_file", &self.jwks_file).finish_non_exhaustive()
    }
}

impl Keys {
    /// Generates a random key and writes the private key (PEM) and the public key (JWKS) into `folder`.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let seed = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let der = [&PKCS8_PREFIX[..], &seed].concat();
        let signing = EncodingKey::from_ed_der(&der);
        let mut jwk = Jwk::from_encoding_key(&signing, Algorithm::EdDSA)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());

        let (private_key_file, jwks_file) = (folder.join("jwt.pem"), folder.join("jwks.json"));
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        fs::write(&private_key_file, pem)?;
        fs::write(&jwks_file, serde_json::to_vec(&JwkSet { keys: vec![jwk] })?)?;
        Ok(Self { signing, private_key_file, jwks_file })
    }

    /// Returns a valid token for this user and these roles.
    pub fn token(&self, user: Uuid, roles: &[&str]) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        self.sign(&json!({ "sub": user, "roles": roles, "iat": now, "exp": now + TOKEN_LIFETIME }))
    }

    /// Returns a signed token with arbitrary claims, for tests of tokens that must be refused.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::EdDSA) };
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }
}
