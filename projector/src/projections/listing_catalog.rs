//! `listing_catalog` lists a seller's own listings, drafts too, and is searched while OpenSearch is unavailable: `projection.listings`.

use events::{Aggregate as _, AggregateKind, Event, Listing, ListingId};
use sqlx::PgPool;
use uuid::Uuid;
use views::listing_catalog::{ListingCatalogRow, SearchText};

use super::postgres::{VersionedTable, provision_partitions, upsert_all};
use crate::connections::{STATEMENT_TIMEOUT, StoreClients};
use crate::generations::Generation;
use crate::projection::{EventResult, Projection, SystemicFailure, WriteLimits};

/// Separates the texts of one array, which is sent as one text: Postgres has no arrays of arrays of different lengths.
const SEPARATOR: &str = "\u{1f}";

/// Writes the rows of one generation, which are a partition of the table.
#[derive(Debug)]
pub struct ListingCatalog {
    db: PgPool,
    generation: i32,
}

impl Projection for ListingCatalog {
    const NAME: &'static str = "listing_catalog";
    const AGGREGATES: &'static [AggregateKind] = &[Listing::KIND];
    const LIMITS: WriteLimits = WriteLimits { events: 500, bytes: 4 * 1024 * 1024, in_flight: 2, timeout: STATEMENT_TIMEOUT };

    type Write = ListingCatalogRow;

    fn open(stores: &StoreClients, generation: &Generation) -> Self {
        Self { db: stores.db.clone(), generation: generation.number }
    }

    async fn provision(stores: &StoreClients, generations: &[Generation]) -> anyhow::Result<Vec<String>> {
        provision_partitions(stores, generations).await
    }

    fn render(&self, event: &Event) -> anyhow::Result<ListingCatalogRow> {
        match event.state::<Listing>()? {
            Some(listing) => Ok(ListingCatalogRow::of(&listing)?),
            None => Ok(ListingCatalogRow::tombstone(ListingId(event.meta.key.id), event.meta.version)),
        }
    }

    async fn store(&self, rows: Vec<ListingCatalogRow>) -> Result<Vec<EventResult>, SystemicFailure> {
        upsert_all(self, &rows).await
    }
}

impl VersionedTable for ListingCatalog {
    type Row = ListingCatalogRow;

    fn id(row: &ListingCatalogRow) -> Uuid {
        row.id
    }

    async fn upsert(&self, rows: &[ListingCatalogRow]) -> sqlx::Result<Vec<Uuid>> {
        upsert(&self.db, self.generation, rows).await
    }
}

/// Writes all rows in one statement, in the order of their keys, so that two statements never wait for each other in a circle.
async fn upsert(db: &PgPool, generation: i32, rows: &[ListingCatalogRow]) -> sqlx::Result<Vec<Uuid>> {
    fn column<'r, T>(rows: &'r [ListingCatalogRow], of: impl Fn(&'r ListingCatalogRow) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    let joined = |texts: &Option<Vec<String>>| texts.as_ref().map(|texts| texts.join(SEPARATOR));
    let words = |of: fn(&SearchText) -> &String| column(rows, |row| row.search.as_ref().map(|search| of(search).as_str()));

    sqlx::query_scalar!(
        r#"insert into projection.listings as stored
                  (generation, id, version, deleted, seller_id, status, visibility, title, categories, brand, condition, tags, attributes, price, currency,
                   available, lat, lon, created_at, search, listing)
           select $24::integer, id, version, deleted, seller_id, status, visibility, title, string_to_array(categories, $23), brand, condition,
                  string_to_array(tags, $23), attributes, price, currency, available, lat, lon, created_at,
                  setweight(to_tsvector('simple', title_words), 'A') || setweight(to_tsvector('simple', keywords), 'B')
                      || setweight(to_tsvector('simple', description_words), 'D'),
                  listing::jsonb
             from unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                         $10::text[], $11::text[], $12::jsonb[], $13::numeric[], $14::text[], $15::boolean[], $16::double precision[],
                         $17::double precision[], $18::timestamptz[], $19::text[], $20::text[], $21::text[], $22::text[])
               as new (id, version, deleted, seller_id, status, visibility, title, categories, brand, condition, tags, attributes, price,
                       currency, available, lat, lon, created_at, title_words, keywords, description_words, listing)
            order by id
           on conflict (generation, id) do update
              set version = excluded.version, deleted = excluded.deleted, seller_id = excluded.seller_id, status = excluded.status,
                  visibility = excluded.visibility, title = excluded.title, categories = excluded.categories, brand = excluded.brand,
                  condition = excluded.condition, tags = excluded.tags, attributes = excluded.attributes, price = excluded.price,
                  currency = excluded.currency, available = excluded.available, lat = excluded.lat, lon = excluded.lon,
                  created_at = excluded.created_at, search = excluded.search, listing = excluded.listing
            where stored.version < excluded.version
           returning id"#,
        &column(rows, |row| row.id),
        &column(rows, |row| row.version),
        &column(rows, |row| row.deleted),
        &column(rows, |row| row.seller_id) as &[Option<Uuid>],
        &column(rows, |row| row.status) as &[Option<&str>],
        &column(rows, |row| row.visibility) as &[Option<&str>],
        &column(rows, |row| row.title.as_deref()) as &[Option<&str>],
        &column(rows, |row| joined(&row.categories)) as &[Option<String>],
        &column(rows, |row| row.brand.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.condition) as &[Option<&str>],
        &column(rows, |row| joined(&row.tags)) as &[Option<String>],
        &column(rows, |row| row.attributes.clone()) as &[Option<serde_json::Value>],
        &column(rows, |row| row.price) as &[Option<rust_decimal::Decimal>],
        &column(rows, |row| row.currency) as &[Option<&str>],
        &column(rows, |row| row.available) as &[Option<bool>],
        &column(rows, |row| row.lat) as &[Option<f64>],
        &column(rows, |row| row.lon) as &[Option<f64>],
        &column(rows, |row| row.created_at) as &[Option<chrono::DateTime<chrono::Utc>>],
        &words(|search| &search.title) as &[Option<&str>],
        &words(|search| &search.keywords) as &[Option<&str>],
        &words(|search| &search.description) as &[Option<&str>],
        &column(rows, |row| row.listing.as_deref()) as &[Option<&str>],
        SEPARATOR,
        generation,
    )
    .fetch_all(db)
    .await
}
