//! The keys that tokens are signed with: fetched when needed, kept for good, fetched again for a key that is not among them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

/// Anybody can send unknown key ids; they must not become load on whoever serves the keys.
const FETCH_AGAIN: Duration = Duration::from_secs(10);

/// While nothing can be checked at all we ask more often.
const FETCH_FIRST: Duration = Duration::from_secs(1);

/// Requests wait for this.
const FETCH_WITHIN: Duration = Duration::from_secs(2);

/// Where the key set is.
#[derive(Debug, Clone)]
pub enum JwksSource {
    File(PathBuf),
    Url(String),
    /// Our own, see [`Signer::jwks`](super::Signer::jwks).
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

pub(super) enum Found {
    Key(Arc<DecodingKey>),
    Unknown,
    /// No key set was ever had.
    Nothing,
}

/// Cloning it is cheap; the clones share what they hold.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    source: JwksSource,
    held: RwLock<Option<KeySet>>,
    /// When a fetch was last begun; held while it runs, so that there is one at a time.
    fetched: Mutex<Option<Instant>>,
}

impl Keys {
    pub fn new(source: JwksSource) -> Self {
        Self(Arc::new(Inner { source, held: RwLock::new(None), fetched: Mutex::new(None) }))
    }

    pub async fn find(&self, kid: &str) -> Found {
        if let Found::Key(key) = self.look(kid) {
            return Found::Key(key);
        }
        self.fetch().await;
        self.look(kid)
    }

    fn look(&self, kid: &str) -> Found {
        match &*self.0.held.read().unwrap_or_else(PoisonError::into_inner) {
            None => Found::Nothing,
            Some(keys) => keys.get(kid).map_or(Found::Unknown, |key| Found::Key(Arc::clone(key))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Fetches the key set, unless that was done, or tried, just now. A key set that was had once is kept if it fails.
    pub async fn fetch(&self) {
        // On its own: a caller who goes away must not take along what others wait for.
        let keys = Arc::clone(&self.0);
        let _ = tokio::spawn(async move { keys.fetch().await }).await;
    }
}

impl Inner {
    async fn fetch(&self) {
        let mut fetched = self.fetched.lock().await;
        let first = self.held.read().unwrap_or_else(PoisonError::into_inner).is_none();
        let pause = if first { FETCH_FIRST } else { FETCH_AGAIN };
        if fetched.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *fetched = Some(Instant::now());
        match self.load().await {
            Ok(keys) => {
                info!(keys = keys.len(), "Read the key set: {} keys", keys.len());
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
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
        // A proxy for the outside world has nothing to say about this machine.
        client = client.no_proxy();
    }
    Ok(client.build()?.get(url).send().await?.error_for_status()?.json().await?)
}

/// The Ed25519 keys of a set that are there to verify signatures; keys for anything else are passed over.
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
