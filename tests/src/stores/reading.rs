//! Reads through query-api that see every committed write.
//!
//! Each query carries a consistency token of the newest versions in the journal. Query-api then does not answer with a page that
//! was cached before the write, and waits for a projection that lags, so that the scenario need not wait.

use events::stock::StockLevel;
use events::{Aggregate as _, AggregateKey, ConsistencyToken, Listing, ListingId, VariantId};
use serde_json::Value;
use uuid::Uuid;

use crate::answer::Answer;
use crate::marketplace::Marketplace;

impl Marketplace {
    /// Returns a consistency token for the last version of each of these aggregates.
    pub async fn token_for(&self, keys: &[AggregateKey]) -> anyhow::Result<String> {
        let mut written = Vec::new();
        for key in keys {
            let select = "select max(version) from command.events where aggregate = $1 and aggregate_id = $2";
            let query = sqlx::query_scalar(select).bind(key.kind.name()).bind(key.id);
            let version: Option<i64> = query.fetch_one(&self.postgres.pool).await?;
            if let Some(version) = version {
                written.push((*key, u64::try_from(version)?));
            }
        }
        Ok(ConsistencyToken::of(&written).encode())
    }

    /// Sends a GET for a listing, as a visitor.
    pub async fn get_listing(&self, listing: impl Into<ListingId>) -> anyhow::Result<Answer> {
        let id = listing.into();
        let token = self.token_for(&[AggregateKey::listing(id)]).await?;
        self.visitor()?.query(&format!("/api/v1/listings/{id}"))?.consistency_token(&token).send().await
    }

    /// Returns a listing as a visitor sees it; fails if the visitor may not see it.
    pub async fn shows(&self, listing: impl Into<ListingId>) -> anyhow::Result<Listing> {
        self.get_listing(listing).await?.expect(200)?.json()
    }

    /// Returns the ids that a search for these words finds, best match first.
    pub async fn finds(&self, words: &str) -> anyhow::Result<Vec<ListingId>> {
        self.found_by("/api/v1/listings/search", &[("q", words)]).await
    }

    /// Returns the ids on the first page of a list or a search with these parameters, in its order.
    pub async fn found_by(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<ListingId>> {
        let select = "select aggregate_id from command.events where aggregate = $1 order by seq desc limit 1";
        let query = sqlx::query_scalar(select).bind(Listing::KIND.name());
        let newest: Option<Uuid> = query.fetch_optional(&self.postgres.pool).await?;
        let token = self.token_for(newest.map(AggregateKey::listing).as_slice()).await?;
        let url = reqwest::Url::parse_with_params(&self.query_api()?.url(path)?, parameters)?;
        let path_and_query = format!("{path}?{}", url.query().unwrap_or_default());
        let answer = self.visitor()?.query(&path_and_query)?.consistency_token(&token).send().await?.expect(200)?;
        answer.item_ids()?.iter().map(|id| Ok(id.parse()?)).collect()
    }

    /// Returns the stock of a variant as a visitor sees it.
    pub async fn stock(&self, variant: VariantId) -> anyhow::Result<StockLevel> {
        let token = self.token_for(&[AggregateKey::stock(variant)]).await?;
        let path = format!("/api/v1/variants/{variant}/stock");
        self.visitor()?.query(&path)?.consistency_token(&token).send().await?.expect(200)?.json()
    }

    /// Sends a GET to any URL and parses the response as JSON.
    pub async fn document(&self, url: &str) -> anyhow::Result<Value> {
        Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
    }
}
