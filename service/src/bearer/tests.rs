//! What is believed, and what is not.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRef;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;

const SOMEBODY: Uuid = Uuid::from_u128(7);
const HOUR: Duration = Duration::from_hours(1);

/// A PKCS#8 Ed25519 key made of one byte, as openssl would write it.
fn pem(seed: u8) -> String {
    const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der: Vec<u8> = PKCS8_ED25519.into_iter().chain([seed; 32]).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn signer(seed: u8) -> Signer {
    Signer::from_pem(pem(seed).as_bytes(), None, None, Clock::Fixed(now())).unwrap()
}

fn verifier(source: JwksSource, at: DateTime<Utc>) -> Verifier {
    Verifier::new(source, None, None, Clock::Fixed(at))
}

/// Signs whatever it is given, with the key of `seed`.
fn sign(seed: u8, claims: &Value) -> String {
    let key = EncodingKey::from_ed_pem(pem(seed).as_bytes()).unwrap();
    let header = Header { kid: Some(kid(seed)), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn kid(seed: u8) -> String {
    signer(seed).jwks()["keys"][0]["kid"].as_str().unwrap().to_owned()
}

fn good_claims() -> Value {
    json!({ "sub": SOMEBODY, "roles": ["reader"], "exp": now().timestamp() + 60 })
}

async fn refused(verifier: &Verifier, token: &str) -> &'static str {
    match verifier.verify(token).await {
        Err(BearerError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_we_sign_we_believe() {
    let signer = signer(1);
    let token = signer.mint(SOMEBODY, ["reader", "writer"], HOUR).unwrap();
    let bearer = verifier(signer.source(), now()).verify(&token).await.unwrap();
    assert_eq!(bearer.id, SOMEBODY);
    assert_eq!(bearer.roles().collect::<Vec<_>>(), ["reader", "writer"]);
}

#[test]
fn the_key_set_shows_the_public_half_under_a_stable_name() {
    let shown = signer(1).jwks();
    assert_eq!(shown, signer(1).jwks());
    let key = &shown["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into(), &"sig".into())
    );
    assert_eq!(URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().len(), 32);
    assert_eq!(URL_SAFE_NO_PAD.decode(key["kid"].as_str().unwrap()).unwrap().len(), 32, "an RFC 7638 thumbprint");
    assert!(key.get("d").is_none(), "{key}");
    assert_ne!(kid(1), kid(2));
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    for text in ["", "secret stuff", "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"] {
        let error = Signer::from_pem(text.as_bytes(), None, None, Clock::System).err().unwrap();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }
    assert!(signer(1).mint(SOMEBODY, ["reader"], Duration::ZERO).is_err());
    assert!(signer(1).mint(SOMEBODY, ["reader"], Duration::MAX).is_err());
}

#[tokio::test]
async fn a_token_is_believed_until_it_expires_and_no_longer() {
    let token = sign(1, &good_claims());
    let source = signer(1).source();
    for (seconds, believed) in [(-3600, true), (59, true), (60, false), (61, false), (3600, false)] {
        let verifier = verifier(source.clone(), now() + TimeDelta::seconds(seconds));
        assert_eq!(verifier.verify(&token).await.is_ok(), believed, "{seconds}");
    }
}

#[tokio::test]
async fn what_is_remembered_expires_too() {
    // Real time: the memory must not outlive the token.
    let signer = Signer::from_pem(pem(1).as_bytes(), None, None, Clock::System).unwrap();
    let verifier = Verifier::new(signer.source(), None, None, Clock::System);
    let token = signer.mint(SOMEBODY, ["reader"], Duration::from_secs(1)).unwrap();
    verifier.verify(&token).await.unwrap();
    let mut believed = true;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        believed = verifier.verify(&token).await.is_ok();
        if !believed {
            break;
        }
    }
    assert!(!believed);
}

#[tokio::test]
async fn each_claim_is_required_and_checked() {
    let verifier = verifier(signer(1).source(), now());
    let with = |name: &str, value: Value| {
        let mut claims = good_claims();
        claims[name] = value;
        sign(1, &claims)
    };
    let without = |name: &str| {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().remove(name);
        sign(1, &claims)
    };
    for name in ["sub", "roles", "exp"] {
        assert_eq!(refused(&verifier, &without(name)).await, "a claim is missing or of the wrong type", "{name}");
    }
    refused(&verifier, &with("sub", json!("bob"))).await;
    refused(&verifier, &with("sub", json!(7))).await;
    refused(&verifier, &with("roles", json!("writer"))).await;
    refused(&verifier, &with("exp", json!("tomorrow"))).await;
    refused(&verifier, &with("exp", json!(-1))).await;
    refused(&verifier, &with("exp", json!(1e300))).await;
    assert_eq!(refused(&verifier, &with("nbf", json!(now().timestamp() + 3600))).await, "it is not valid yet");
    verifier.verify(&with("nbf", json!(now().timestamp() + 5))).await.unwrap();
    verifier.verify(&with("exp", json!(1_800_000_000.5))).await.unwrap();

    let bearer = verifier.verify(&with("roles", json!(["reader", "astronaut", "Writer"]))).await.unwrap();
    assert_eq!(bearer.roles().collect::<Vec<_>>(), ["reader", "astronaut", "Writer"], "as the token has them");
    let any_uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    assert_eq!(verifier.verify(&with("sub", json!(any_uuid))).await.unwrap().id.to_string(), any_uuid);
    // Any issuer and audience are accepted unless one is configured.
    verifier.verify(&with("aud", json!(["elsewhere"]))).await.unwrap();
    verifier.verify(&with("iss", json!("elsewhere"))).await.unwrap();
}

#[tokio::test]
async fn issuer_and_audience_are_required_once_they_are_set() {
    let verifier = Verifier::new(signer(1).source(), Some("us"), Some("market"), Clock::Fixed(now()));
    let token = |iss: Option<&str>, aud: Option<Value>| {
        let mut claims = good_claims();
        iss.inspect(|iss| claims["iss"] = json!(iss));
        aud.inspect(|aud| claims["aud"] = aud.clone());
        sign(1, &claims)
    };
    verifier.verify(&token(Some("us"), Some(json!("market")))).await.unwrap();
    verifier.verify(&token(Some("us"), Some(json!(["else", "market"])))).await.unwrap();
    refused(&verifier, &token(Some("them"), Some(json!("market")))).await;
    refused(&verifier, &token(Some("us"), Some(json!("else")))).await;
    refused(&verifier, &token(None, Some(json!("market")))).await;
    refused(&verifier, &token(Some("us"), None)).await;

    let ours = Signer::from_pem(pem(1).as_bytes(), Some("us"), Some("market"), Clock::Fixed(now())).unwrap();
    verifier.verify(&ours.mint(SOMEBODY, ["reader"], HOUR).unwrap()).await.unwrap();
}

#[tokio::test]
async fn only_eddsa_by_a_known_key_is_believed() {
    let verifier = verifier(signer(1).source(), now());
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());

    // The public key is public: whoever could use it as an HMAC secret could be anybody.
    let public = URL_SAFE_NO_PAD.decode(signer(1).jwks()["keys"][0]["x"].as_str().unwrap()).unwrap();
    for secret in [&public[..], signer(1).jwks().to_string().as_bytes()] {
        let header = Header { kid: Some(kid(1)), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &good_claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(refused(&verifier, &token).await, "it is not signed with EdDSA");
    }
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "kid": kid(1) })), part(&good_claims()));
    refused(&verifier, &unsigned).await;
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "EdDSA", "kid": kid(1) })), part(&good_claims()));
    refused(&verifier, &unsigned).await;

    // Somebody else's key, under its own name and under ours.
    assert_eq!(refused(&verifier, &sign(2, &good_claims())).await, "its key is not known");
    let key = EncodingKey::from_ed_pem(pem(2).as_bytes()).unwrap();
    let header = Header { kid: Some(kid(1)), ..Header::new(Algorithm::EdDSA) };
    let forged = jsonwebtoken::encode(&header, &good_claims(), &key).unwrap();
    assert_eq!(refused(&verifier, &forged).await, "its signature is wrong");
    let ours = EncodingKey::from_ed_pem(pem(1).as_bytes()).unwrap();
    let header = Header { kid: Some(kid(1)), crit: Some(vec!["exp".to_owned()]), ..Header::new(Algorithm::EdDSA) };
    let critical = jsonwebtoken::encode(&header, &good_claims(), &ours).unwrap();
    assert_eq!(refused(&verifier, &critical).await, "it has critical headers (crit)");
    let header = Header { kid: None, ..Header::new(Algorithm::EdDSA) };
    refused(&verifier, &jsonwebtoken::encode(&header, &good_claims(), &key).unwrap()).await;

    // A good token with other claims put in.
    let good = sign(1, &good_claims());
    let parts: Vec<&str> = good.split('.').collect();
    let mut claims = good_claims();
    claims["roles"] = json!(["writer"]);
    assert_eq!(refused(&verifier, &format!("{}.{}.{}", parts[0], part(&claims), parts[2])).await, "its signature is wrong");
    for garbage in ["", ".", "..", "a.b.c", "a.b.c.d", &"x".repeat(100_000)] {
        refused(&verifier, garbage).await;
    }
    verifier.verify(&good).await.unwrap();
}

#[tokio::test]
async fn the_key_set_is_kept_and_read_again_for_an_unknown_key() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let serve = async move || {
        // The second time there are two keys: the signer rotates.
        let seeds: &[u8] = if counted.fetch_add(1, Ordering::Relaxed) == 0 { &[1] } else { &[1, 2] };
        let keys: Vec<Value> = seeds.iter().map(|&seed| signer(seed).jwks()["keys"][0].clone()).collect();
        axum::Json(json!({ "keys": keys }))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let server = tokio::spawn(async { axum::serve(listener, Router::new().route("/jwks.json", get(serve))).await });

    let verifier = verifier(url.parse().unwrap(), now());
    for _ in 0..3 {
        verifier.verify(&sign(1, &good_claims())).await.unwrap();
    }
    for _ in 0..3 {
        refused(&verifier, &sign(2, &good_claims())).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "unknown keys soon after a fetch do not make another");
    server.abort();
    verifier.verify(&sign(1, &good_claims())).await.unwrap();
}

#[tokio::test]
async fn keys_for_other_things_are_passed_over() {
    let mut set = signer(1).jwks();
    let keys = set["keys"].as_array_mut().unwrap();
    keys.push(json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256" }));
    keys.push(json!({ "kty": "new", "kid": "of-the-future" }));
    keys.push(json!("no key at all"));
    let verifier = verifier(JwksSource::Known(set), now());
    verifier.verify(&sign(1, &good_claims())).await.unwrap();
    let header = Header { kid: Some("shared".to_owned()), ..Header::new(Algorithm::HS256) };
    refused(&verifier, &jsonwebtoken::encode(&header, &good_claims(), &EncodingKey::from_secret(b"secret")).unwrap()).await;
}

#[derive(Clone)]
struct App(Verifier);

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

async fn ask(verifier: &Verifier, path: &str, authorization: &[&str]) -> http::Response<Body> {
    let routes = Router::new()
        .route("/mine", get(async |bearer: TokenBearer| bearer.id.to_string()))
        .route("/open", get(async |Visitor(bearer): Visitor| bearer.is_some().to_string()))
        .with_state(App(verifier.clone()));
    let mut request = Request::get(path);
    for value in authorization {
        request = request.header(AUTHORIZATION, *value);
    }
    routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_route_knows_the_bearer_or_refuses() {
    let verifier = verifier(signer(1).source(), now());
    let bearer = format!("Bearer {}", sign(1, &good_claims()));
    let status = async |path: &str, authorization: &[&str]| ask(&verifier, path, authorization).await.status().as_u16();

    assert_eq!(status("/mine", &[&bearer]).await, 200);
    assert_eq!(status("/mine", &[&bearer.replace("Bearer ", "bearer   ")]).await, 200);
    assert_eq!(status("/mine", &[]).await, 401);
    assert_eq!(status("/open", &[]).await, 200);
    assert_eq!(status("/open", &[&bearer]).await, 200);
    for bad in ["Bearer", "Bearer ", "Bearer x", "Basic dTpw", "Bearer a b", ""] {
        assert_eq!(status("/open", &[bad]).await, 401, "{bad:?}");
        assert_eq!(status("/mine", &[bad]).await, 401, "{bad:?}");
    }
    assert_eq!(status("/mine", &[&bearer, &bearer]).await, 401, "two tokens have two bearers");

    assert_eq!(ask(&verifier, "/mine", &[]).await.headers()[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(ask(&verifier, "/mine", &["Bearer x"]).await.headers()[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
}

#[tokio::test]
async fn without_a_key_set_nobody_is_called_a_liar() {
    let path: PathBuf = std::env::temp_dir().join(format!("service-jwks-{}.json", Uuid::now_v7()));
    let verifier = verifier(path.display().to_string().parse().unwrap(), now());
    let bearer = format!("Bearer {}", sign(1, &good_claims()));

    let response = ask(&verifier, "/mine", &[&bearer]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(RETRY_AFTER) && !response.headers().contains_key(WWW_AUTHENTICATE));
    assert_eq!(
        ask(&verifier, "/mine", &["Bearer x"]).await.status(),
        StatusCode::UNAUTHORIZED,
        "that is no token whatever the keys"
    );
    assert!(!verifier.has_keys());

    // The file comes later; the next try after the pause finds it.
    fs::write(&path, signer(1).jwks().to_string()).unwrap();
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = ask(&verifier, "/mine", &[&bearer]).await.status();
        if status.is_success() {
            break;
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(verifier.has_keys());
}
