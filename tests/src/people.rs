//! Who acts in a scenario. A name is always the same user: `market.seller("ada")`.

use anyhow::Context as _;
use events::stock::StockLevel;
use events::{Listing, ListingId, VariantId};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::Answer;
use crate::listings::{ListingDraft, Published};
use crate::program::Program;

/// Somebody with a browser and, mostly, a token.
#[derive(Debug, Clone)]
pub struct Person<'m> {
    pub id: Uuid,
    pub(crate) token: Option<String>,
    pub(crate) commands: &'m Program,
    pub(crate) queries: &'m Program,
    pub(crate) http: Client,
}

/// The user that a name stands for: the same one in every run.
#[must_use]
pub fn user(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    for (index, byte) in name.bytes().enumerate() {
        bytes[index % 16] ^= byte.rotate_left(u32::try_from(index / 16).unwrap_or_default());
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl<'m> Person<'m> {
    /// The same person, who talks to another command-api.
    #[must_use]
    pub fn through(&self, commands: &'m Program) -> Self {
        Self { commands, ..self.clone() }
    }

    /// The same person with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// A request to command-api, ready to be sent.
    pub fn command(&self, method: Method, path: &str) -> anyhow::Result<Request> {
        self.request(self.commands, method, path)
    }

    /// A request to query-api, ready to be sent.
    pub fn query(&self, path: &str) -> anyhow::Result<Request> {
        self.request(self.queries, Method::GET, path)
    }

    fn request(&self, program: &Program, method: Method, path: &str) -> anyhow::Result<Request> {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, program.url(path)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(Request { asked, request })
    }

    /// Asks query-api for something.
    pub async fn asks(&self, path: &str) -> anyhow::Result<Answer> {
        self.query(path)?.send().await
    }

    pub async fn publishes(&self, draft: ListingDraft) -> anyhow::Result<Published> {
        let listing = self.creates(&draft).await?.expect(201)?.json::<Listing>()?;
        let variant = listing.variants.first().context("a listing without a variant")?.id;
        Ok(Published { id: listing.id, variant })
    }

    pub async fn creates(&self, draft: &ListingDraft) -> anyhow::Result<Answer> {
        self.command(Method::POST, "/api/v1/listings")?.json(&draft.0).send().await
    }

    /// Changes some fields, whatever the version is now.
    pub async fn changes(&self, listing: impl Into<ListingId>, patch: Value) -> anyhow::Result<Listing> {
        let address = format!("/api/v1/listings/{}", listing.into());
        self.command(Method::PATCH, &address)?.if_match("*").json(&patch).send().await?.expect(200)?.json()
    }

    pub async fn deletes(&self, listing: impl Into<ListingId>) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/listings/{}", listing.into());
        self.command(Method::DELETE, &path)?.if_match("*").send().await?.expect(204)
    }

    /// `publish`, `pause` or `archive`.
    pub async fn puts(&self, listing: impl Into<ListingId>, verb: &str) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/listings/{}/{verb}", listing.into());
        self.command(Method::POST, &path)?.if_match("*").send().await
    }

    /// Counts the pieces.
    pub async fn counts(&self, variant: VariantId, on_hand: i64) -> anyhow::Result<StockLevel> {
        let path = format!("/api/v1/variants/{variant}/stock");
        self.command(Method::PUT, &path)?.json(&json!({ "on_hand": on_hand })).send().await?.expect(200)?.json()
    }

    /// Moves pieces: `in`, `out` or `adjustment`.
    pub async fn moves(&self, variant: VariantId, movement: &str, quantity: i64) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/variants/{variant}/movements");
        self.command(Method::POST, &path)?.json(&json!({ "type": movement, "quantity": quantity })).send().await
    }
}

impl From<Published> for ListingId {
    fn from(published: Published) -> Self {
        published.id
    }
}

/// A request that is not sent yet.
#[derive(Debug)]
#[must_use = "a request that is not sent asks nothing"]
pub struct Request {
    asked: String,
    request: RequestBuilder,
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn if_match(self, etag: &str) -> Self {
        self.header("If-Match", etag)
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.request = self.request.json(body);
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header("Content-Type", content_type).body(body);
        self
    }

    pub async fn send(self) -> anyhow::Result<Answer> {
        let response = self.request.send().await.with_context(|| format!("{} got no answer", self.asked))?;
        Answer::read(self.asked, response).await
    }
}
