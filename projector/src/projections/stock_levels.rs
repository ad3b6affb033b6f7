//! `stock_levels` says how many pieces are left and what is low: `projection.stock_levels`.

use events::{Aggregate as _, AggregateKind, Event, Stock, VariantId};
use sqlx::PgPool;
use uuid::Uuid;
use views::stock_levels::StockLevelRow;

use super::postgres::{VersionedTable, provision_partitions, upsert_all};
use crate::connections::{STATEMENT_TIMEOUT, StoreClients};
use crate::generations::Generation;
use crate::projection::{EventResult, Projection, SystemicFailure, WriteLimits};

/// Writes the rows of one generation, which are a partition of the table.
#[derive(Debug)]
pub struct StockLevels {
    db: PgPool,
    generation: i32,
}

impl Projection for StockLevels {
    const NAME: &'static str = "stock_levels";
    const AGGREGATES: &'static [AggregateKind] = &[Stock::KIND];
    const LIMITS: WriteLimits = WriteLimits { events: 500, bytes: 4 * 1024 * 1024, in_flight: 2, timeout: STATEMENT_TIMEOUT };

    type Write = StockLevelRow;

    fn open(stores: &StoreClients, generation: &Generation) -> Self {
        Self { db: stores.db.clone(), generation: generation.number }
    }

    async fn provision(stores: &StoreClients, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
        provision_partitions(stores, generations).await
    }

    fn render(&self, event: &Event) -> anyhow::Result<StockLevelRow> {
        match event.state::<Stock>()? {
            Some(stock) => Ok(StockLevelRow::of(&stock)),
            None => Ok(StockLevelRow::tombstone(VariantId(event.meta.key.id), event.meta.version)),
        }
    }

    async fn store(&self, rows: Vec<StockLevelRow>) -> Result<Vec<EventResult>, SystemicFailure> {
        upsert_all(self, &rows).await
    }
}

impl VersionedTable for StockLevels {
    type Row = StockLevelRow;

    fn id(row: &StockLevelRow) -> Uuid {
        row.variant_id
    }

    async fn upsert(&self, rows: &[StockLevelRow]) -> sqlx::Result<Vec<Uuid>> {
        upsert(&self.db, self.generation, rows).await
    }
}

/// Writes all rows in one statement, in the order of their keys, so that two statements never wait for each other in a circle.
async fn upsert(db: &PgPool, generation: i32, rows: &[StockLevelRow]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"insert into projection.stock_levels as stored
                  (generation, variant_id, version, removed, listing_id, seller_id, on_hand, reserved, low_stock_threshold, updated_at)
           select $10::integer, new.* from unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::uuid[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[],
                                $9::timestamptz[])
               as new (variant_id, version, removed, listing_id, seller_id, on_hand, reserved, low_stock_threshold, updated_at)
            order by variant_id
           on conflict (generation, variant_id) do update
              set version = excluded.version, removed = excluded.removed, listing_id = excluded.listing_id, seller_id = excluded.seller_id,
                  on_hand = excluded.on_hand, reserved = excluded.reserved, low_stock_threshold = excluded.low_stock_threshold,
                  updated_at = excluded.updated_at
            where stored.version < excluded.version
           returning variant_id"#,
        &rows.iter().map(|row| row.variant_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.version).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.removed).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.listing_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &rows.iter().map(|row| row.seller_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &rows.iter().map(|row| row.on_hand).collect::<Vec<_>>() as &[Option<i64>],
        &rows.iter().map(|row| row.reserved).collect::<Vec<_>>() as &[Option<i64>],
        &rows.iter().map(|row| row.low_stock_threshold).collect::<Vec<_>>() as &[Option<i64>],
        &rows.iter().map(|row| row.updated_at).collect::<Vec<_>>() as &[Option<chrono::DateTime<chrono::Utc>>],
        generation,
    )
    .fetch_all(db)
    .await
}
