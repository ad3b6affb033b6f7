//! Reads the write side: the journal, the outbox, and the tables of listings and stock.

use std::collections::BTreeMap;

use anyhow::Context as _;
use events::{AggregateKey, Stock};
use serde_json::Value;
use uuid::Uuid;

use super::Held;
use crate::marketplace::Marketplace;

/// A committed event, as the journal stores it.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub key: AggregateKey,
    pub version: u64,
    pub event_id: Uuid,
    pub event_type: String,
    /// `{"change": …, "state": …}`.
    pub body: Value,
}

impl Marketplace {
    /// Returns the number of events in the outbox, which are not published yet.
    pub async fn outbox(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from command.outbox").fetch_one(&self.postgres.pool).await?)
    }

    /// Returns all committed events in the order of `seq`.
    pub async fn journal(&self) -> anyhow::Result<Vec<JournalEntry>> {
        type Row = (String, Uuid, i64, Uuid, String, Vec<u8>);
        let select = "select aggregate, aggregate_id, version, event_id, type, body from command.events order by seq";
        let rows: Vec<Row> = sqlx::query_as(select).fetch_all(&self.postgres.pool).await?;
        let entry = |(aggregate, id, version, event_id, event_type, body): Row| {
            let key = AggregateKey { kind: aggregate.parse()?, id };
            let body = serde_json::from_slice(&body).with_context(|| format!("{key} v{version} is not JSON"))?;
            Ok(JournalEntry { key, version: u64::try_from(version)?, event_id, event_type, body })
        };
        rows.into_iter().map(entry).collect()
    }

    /// Returns the rows of `command.listings`, including deleted ones.
    pub(crate) async fn listing_rows(&self) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        self.rows("select id, version, deleted_at is not null, state from command.listings").await
    }

    /// Returns the rows of `command.stock`, including removed ones.
    pub(crate) async fn stock_rows(&self) -> anyhow::Result<BTreeMap<Uuid, Held>> {
        self.states::<Stock>("select variant_id, version, removed_at is not null, to_jsonb(s) from command.stock s").await
    }
}
