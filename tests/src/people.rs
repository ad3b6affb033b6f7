//! The users of a scenario and the requests that they send. The same name is always the same user: `market.seller("ada")`.

use anyhow::Context as _;
use events::stock::StockLevel;
use events::{Listing, ListingId, VariantId};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::Answer;
use crate::listings::{ListingDraft, Published};
use crate::program::Program;

/// An HTTP client of both APIs that acts as one user, with a token or (a visitor) without.
#[derive(Debug, Clone)]
pub struct Person<'m> {
    pub id: Uuid,
    pub(crate) token: Option<String>,
    pub(crate) commands: &'m Program,
    pub(crate) queries: &'m Program,
    pub(crate) http: Client,
}

/// Returns the id of the user with this name, which is the same in every run.
#[must_use]
pub fn user(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    for (index, byte) in name.bytes().enumerate() {
        bytes[index % 16] ^= byte.rotate_left(u32::try_from(index / 16).unwrap_or_default());
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl<'m> Person<'m> {
    /// Returns the same user, whose commands go to another command-api process.
    #[must_use]
    pub fn through(&self, commands: &'m Program) -> Self {
        Self { commands, ..self.clone() }
    }

    /// Returns the same user with another token, or without one.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Prepares a request to command-api.
    pub fn command(&self, method: Method, path: &str) -> anyhow::Result<PendingRequest> {
        self.request(self.commands, method, path)
    }

    /// Prepares a request to query-api.
    pub fn query(&self, path: &str) -> anyhow::Result<PendingRequest> {
        self.request(self.queries, Method::GET, path)
    }

    fn request(&self, program: &Program, method: Method, path: &str) -> anyhow::Result<PendingRequest> {
        let description = format!("{method} {path}");
        let mut request = self.http.request(method, program.url(path)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(PendingRequest { description, request })
    }

    /// Sends a GET to query-api.
    pub async fn asks(&self, path: &str) -> anyhow::Result<Answer> {
        self.query(path)?.send().await
    }

    /// Creates a listing, and fails unless that succeeds.
    pub async fn publishes(&self, draft: ListingDraft) -> anyhow::Result<Published> {
        let listing = self.creates(&draft).await?.expect(201)?.json::<Listing>()?;
        let variant = listing.variants.first().context("a listing without a variant")?.id;
        Ok(Published { id: listing.id, variant })
    }

    /// Sends a request to create a listing, whatever the response.
    pub async fn creates(&self, draft: &ListingDraft) -> anyhow::Result<Answer> {
        self.command(Method::POST, "/api/v1/listings")?.json(&draft.0).send().await
    }

    /// Changes some fields, whatever the current version (`If-Match: *`).
    pub async fn changes(&self, listing: impl Into<ListingId>, patch: Value) -> anyhow::Result<Listing> {
        let address = format!("/api/v1/listings/{}", listing.into());
        self.command(Method::PATCH, &address)?.if_match("*").json(&patch).send().await?.expect(200)?.json()
    }

    /// Deletes a listing, whatever its current version.
    pub async fn deletes(&self, listing: impl Into<ListingId>) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/listings/{}", listing.into());
        self.command(Method::DELETE, &path)?.if_match("*").send().await?.expect(204)
    }

    /// Sends one of the verbs `publish`, `pause` and `archive`.
    pub async fn puts(&self, listing: impl Into<ListingId>, verb: &str) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/listings/{}/{verb}", listing.into());
        self.command(Method::POST, &path)?.if_match("*").send().await
    }

    /// Sets the stock on hand.
    pub async fn counts(&self, variant: VariantId, on_hand: i64) -> anyhow::Result<StockLevel> {
        let path = format!("/api/v1/variants/{variant}/stock");
        self.command(Method::PUT, &path)?.json(&json!({ "on_hand": on_hand })).send().await?.expect(200)?.json()
    }

    /// Records a stock movement: `in`, `out` or `adjustment`.
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

/// A request that has not been sent yet.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct PendingRequest {
    /// Method and path, for error messages.
    description: String,
    request: RequestBuilder,
}

impl PendingRequest {
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

    /// Makes the query wait until it can see the writes of this token (read-your-writes).
    pub fn consistency_token(self, token: &str) -> Self {
        self.header("Consistency-Token", token)
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.request = self.request.json(body);
        self
    }

    /// Sets a JSON body if there is one.
    pub fn optional_json(self, body: Option<&Value>) -> Self {
        match body {
            Some(body) => self.json(body),
            None => self,
        }
    }

    pub fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header("Content-Type", content_type).body(body);
        self
    }

    pub async fn send(self) -> anyhow::Result<Answer> {
        let response = self.request.send().await.with_context(|| format!("{} got no response", self.description))?;
        Answer::read(self.description, response).await
    }
}
