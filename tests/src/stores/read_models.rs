//! What the projections hold.

use std::collections::BTreeMap;

use anyhow::Context as _;
use events::{Aggregate, Stock};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use views::{listing_page, listing_search};

use crate::marketplace::Marketplace;

/// What a store holds of one aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub version: u64,
    /// As the API shows it; `None` for a tombstone.
    pub state: Option<Value>,
}

impl Marketplace {
    /// The generation that readers of a projection use.
    pub async fn serving(&self, projection: &str) -> anyhow::Result<i32> {
        let select = "select generation from projection.generations where projection = $1 and state = 'serving'";
        Ok(sqlx::query_scalar(select).bind(projection).fetch_one(&self.postgres.pool).await?)
    }

    /// The documents of `listing_search`, tombstones too, refreshed or not.
    pub async fn documents(&self, ids: &[Uuid]) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let generation = u32::try_from(self.serving(listing_search::NAME).await?)?;
        let index = listing_search::index(&self.opensearch.alias, generation);
        let found = self.opensearch.ask(Method::POST, &format!("/{index}/_mget"), Some(&json!({ "ids": ids }))).await?;
        let documents = found.with_context(|| format!("there is no index {index}"))?;
        let mut held = BTreeMap::new();
        for document in documents["docs"].as_array().into_iter().flatten().filter(|document| document["found"] == true) {
            let source = &document["_source"];
            let gone = source[listing_search::field::DELETED] == true;
            let raw = serde_json::value::to_raw_value(source)?;
            let state = if gone { None } else { Some(serde_json::from_str(&listing_search::listing_json(&raw)?)?) };
            let id = document["_id"].as_str().context("a document without id")?.parse()?;
            held.insert(id, Held { version: document["_version"].as_u64().context("a document without version")?, state });
        }
        Ok(held)
    }

    /// The rows of the serving `listing_catalog`, tombstones too.
    pub async fn catalogue(&self) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        let select = "select id, version, deleted, listing from projection.listings
                        join projection.generations using (generation) where projection = 'listing_catalog' and state = 'serving'";
        self.rows(select).await
    }

    /// The rows of the serving `stock_levels`, tombstones too. Their states are the stocks that they mean.
    pub async fn stock_levels(&self) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        let select = "select variant_id, version, removed, to_jsonb(l) from projection.stock_levels l
                        join projection.generations using (generation) where projection = 'stock_levels' and state = 'serving'";
        self.states::<Stock>(select).await
    }

    /// Rows whose columns are the members of a state of `A`.
    pub(crate) async fn states<A: Aggregate>(&self, select: &'static str) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        let mut rows = self.rows(select).await?;
        for state in rows.values_mut().filter_map(|held| held.state.as_mut()) {
            let read: A = serde_json::from_value(state.take())?;
            *state = serde_json::to_value(&read)?;
        }
        Ok(rows)
    }

    pub(crate) async fn rows(&self, select: &'static str) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        let rows: Vec<(Uuid, i64, bool, Option<Value>)> = sqlx::query_as(select).fetch_all(&self.postgres.pool).await?;
        let held = |(id, version, gone, state): (Uuid, i64, bool, Option<Value>)| {
            let state = state.filter(|_| !gone);
            Ok((id, Held { version: u64::try_from(version)?, state }))
        };
        rows.into_iter().map(held).collect()
    }

    /// The page of a listing, if Redis holds one.
    pub async fn page(&self, listing: Uuid) -> anyhow::Result<Option<Held>> {
        let generation = self.serving("listing_page").await?;
        self.cached(&listing_page::listing_key(generation, listing.into())).await
    }

    /// The stock of a variant, if Redis holds it.
    pub async fn cached_stock(&self, variant: Uuid) -> anyhow::Result<Option<Held>> {
        let generation = self.serving("listing_page").await?;
        self.cached(&listing_page::stock_key(generation, variant.into())).await
    }

    async fn cached(&self, key: &str) -> anyhow::Result<Option<Held>> {
        let page: Option<String> = redis::cmd("GET").arg(key).query_async(&mut self.redis.connection().await?).await?;
        let Some(page) = page else { return Ok(None) };
        let (head, body) = page.split_once('\n').map_or((page.as_str(), None), |(head, body)| (head, Some(body)));
        let version = head.split(' ').next().unwrap_or_default().parse()?;
        Ok(Some(Held { version, state: body.map(serde_json::from_str).transpose()? }))
    }
}
