//! The key set that tokens are verified with. It is fetched with the first token, kept for good, and fetched again when a token
//! names a key that is not in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use url::Url;

use anyhow::Context as _;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

/// At most one fetch per this time. Anybody can send unknown key ids; they must not become load on the server of the keys.
const FETCH_AGAIN: Duration = Duration::from_secs(10);

/// The same while there is no key set at all, and no token can be checked.
const FETCH_FIRST: Duration = Duration::from_secs(1);

/// Timeout of a fetch. Requests wait for it.
const FETCH_WITHIN: Duration = Duration::from_secs(2);

/// Where the key set is read from.
#[derive(Debug, Clone)]
pub enum JwksSource {
    File(PathBuf),
    Url(String),
    /// The public key of this program's own signer, see [`Signer::jwks`](super::Signer::jwks).
    Known(Value),
}

impl FromStr for JwksSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("is empty: name a file, or a URL that begins with http:// or https://");
        }
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(text.to_owned())),
            Ok(_) | Err(_) => Err("is no URL that begins with http:// or https://"),
        }
    }
}

type KeySet = HashMap<String, Arc<DecodingKey>>;

pub(super) enum KeyLookup {
    Key(Arc<DecodingKey>),
    Unknown,
    /// No key set was read yet.
    NoKeySet,
}

/// The key set and its fetches. Clones share both.
#[derive(Clone)]
pub(super) struct JwksCache(Arc<Inner>);

struct Inner {
    source: JwksSource,
    current: RwLock<Option<KeySet>>,
    /// When a fetch last began. Locked while one runs, so that there is one at a time.
    fetched: Mutex<Option<Instant>>,
}

impl JwksCache {
    pub fn new(source: JwksSource) -> Self {
        Self(Arc::new(Inner { source, current: RwLock::new(None), fetched: Mutex::new(None) }))
    }

    pub async fn find(&self, kid: &str) -> KeyLookup {
        if let KeyLookup::Key(key) = self.look(kid) {
            return KeyLookup::Key(key);
        }
        self.fetch().await;
        self.look(kid)
    }

    fn look(&self, kid: &str) -> KeyLookup {
        match &*self.0.current.read().unwrap_or_else(PoisonError::into_inner) {
            None => KeyLookup::NoKeySet,
            Some(keys) => keys.get(kid).map_or(KeyLookup::Unknown, |key| KeyLookup::Key(Arc::clone(key))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Fetches the key set, unless a fetch began a moment ago. If it fails, the present key set stays.
    pub async fn fetch(&self) {
        // In a task of its own: a request that is cancelled must not cancel the fetch that others wait for.
        let keys = Arc::clone(&self.0);
        let _ = tokio::spawn(async move { keys.fetch().await }).await;
    }
}

impl Inner {
    async fn fetch(&self) {
        let mut fetched = self.fetched.lock().await;
        let first = self.current.read().unwrap_or_else(PoisonError::into_inner).is_none();
        let pause = if first { FETCH_FIRST } else { FETCH_AGAIN };
        if fetched.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *fetched = Some(Instant::now());
        match self.load().await {
            Ok(keys) => {
                info!(keys = keys.len(), "Read the key set: {} keys", keys.len());
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
            }
            Err(error) => warn!(error = format!("{error:#}"), "Cannot read the key set: {error}"),
        }
    }

    async fn load(&self) -> anyhow::Result<KeySet> {
        let set = match &self.source {
            JwksSource::Known(set) => set.clone(),
            JwksSource::File(path) => {
                let text = tokio::fs::read(path).await.with_context(|| format!("JWT_JWKS: cannot read {}", path.display()))?;
                serde_json::from_slice(&text).with_context(|| format!("JWT_JWKS: {} is no JSON", path.display()))?
            }
            JwksSource::Url(url) => get(url).await.with_context(|| format!("JWT_JWKS: cannot get {url}"))?,
        };
        keys_in(&set)
    }
}

async fn get(url: &str) -> anyhow::Result<Value> {
    let url = Url::parse(url)?;
    let mut client = reqwest::Client::builder().timeout(FETCH_WITHIN);
    if url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]")) {
        // Requests to this machine do not go through a proxy.
        client = client.no_proxy();
    }
    Ok(client.build()?.get(url).send().await?.error_for_status()?.json().await?)
}

/// The Ed25519 keys of a set that may verify signatures. All other keys are ignored.
fn keys_in(set: &Value) -> anyhow::Result<KeySet> {
    let listed = set.get("keys").and_then(Value::as_array).context("JWT_JWKS: a key set has an array called keys")?;
    let usable = listed.iter().filter_map(|key| {
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let AlgorithmParameters::OctetKeyPair(pair) = &key.algorithm else { return None };
        let signs = key.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        if pair.curve != EllipticCurve::Ed25519 || !signs {
            return None;
        }
        let verifying = DecodingKey::from_jwk(&key).ok()?;
        Some((key.common.key_id?, Arc::new(verifying)))
    });
    Ok(usable.collect())
}
