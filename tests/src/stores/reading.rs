//! What query-api shows of everything that has been committed.
//!
//! Each question carries a token of the newest versions in the journal: a page that was cached before the write is then no
//! answer, and a projection that is late makes the question wait instead of the scenario.

use events::stock::StockLevel;
use events::{Aggregate as _, AggregateKey, ConsistencyToken, Listing, ListingId, VariantId};
use serde_json::Value;
use uuid::Uuid;

use crate::answer::Answer;
use crate::marketplace::Marketplace;

impl Marketplace {
    /// A token for the last version of each of these aggregates.
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

    /// What a visitor gets who asks for a listing by its id.
    pub async fn asked_for(&self, listing: impl Into<ListingId>) -> anyhow::Result<Answer> {
        let id = listing.into();
        let token = self.token_for(&[AggregateKey::listing(id)]).await?;
        self.visitor()?.query(&format!("/api/v1/listings/{id}"))?.header("Consistency-Token", &token).send().await
    }

    /// The listing as a visitor sees it.
    pub async fn shows(&self, listing: impl Into<ListingId>) -> anyhow::Result<Listing> {
        self.asked_for(listing).await?.expect(200)?.json()
    }

    /// The ids that a search for these words finds, best first.
    pub async fn finds(&self, words: &str) -> anyhow::Result<Vec<ListingId>> {
        self.found_by("/api/v1/listings/search", &[("q", words)]).await
    }

    /// The ids that a list or a search with these parameters answers with, in its order.
    pub async fn found_by(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<ListingId>> {
        let select = "select aggregate_id from command.events where aggregate = $1 order by seq desc limit 1";
        let query = sqlx::query_scalar(select).bind(Listing::KIND.name());
        let newest: Option<Uuid> = query.fetch_optional(&self.postgres.pool).await?;
        let token = self.token_for(newest.map(AggregateKey::listing).as_slice()).await?;
        let question = reqwest::Url::parse_with_params(&self.query_api()?.url(path)?, parameters)?;
        let asked = format!("{path}?{}", question.query().unwrap_or_default());
        let answer = self.visitor()?.query(&asked)?.header("Consistency-Token", &token).send().await?.expect(200)?;
        let items = answer.value()?["items"].take();
        let ids = items.as_array().into_iter().flatten().map(|item| Ok(item["id"].as_str().unwrap_or_default().parse()?));
        ids.collect()
    }

    /// The stock of a variant as a visitor sees it.
    pub async fn stock(&self, variant: VariantId) -> anyhow::Result<StockLevel> {
        let token = self.token_for(&[AggregateKey::stock(variant)]).await?;
        let path = format!("/api/v1/variants/{variant}/stock");
        self.visitor()?.query(&path)?.header("Consistency-Token", &token).send().await?.expect(200)?.json()
    }

    /// A document that a program serves about itself.
    pub async fn document(&self, url: &str) -> anyhow::Result<Value> {
        Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
    }
}
