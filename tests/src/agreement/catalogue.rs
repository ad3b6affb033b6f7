//! What lists and degraded searches filter by: each column of `projection.listings` against the listing that it was made of.

use chrono::{DateTime, Utc};
use events::Listing;
use serde_json::{Value, json};
use uuid::Uuid;
use views::listing_catalog::ListingCatalogRow;

use crate::marketplace::Marketplace;

/// The columns that are compared as JSON; a price as text, because its digits count.
const COLUMNS: &str = "select id, l.created_at, lat, lon, to_jsonb(l) - '{generation,id,version,deleted,listing,search,created_at,lat,lon}'::text[] \
                           || jsonb_build_object('price', price::text) \
                         from projection.listings l join projection.generations using (generation) \
                        where projection = 'listing_catalog' and state = 'serving' and not deleted";
/// The words of a row, made anew of the same text.
const WORDS: &str = "select id from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as due (id, title, keywords, description) \
                       join projection.listings using (id) join projection.generations using (generation) \
                      where projection = 'listing_catalog' and state = 'serving' and search is distinct from setweight(to_tsvector('simple', due.title), 'A') \
                          || setweight(to_tsvector('simple', due.keywords), 'B') || setweight(to_tsvector('simple', due.description), 'D')";

/// Id, what is not compared as JSON (`created_at`, `lat`, `lon`), and what is.
type Columns = (Uuid, Option<DateTime<Utc>>, Option<f64>, Option<f64>, Value);

impl Marketplace {
    /// The listings whose columns are not those of the listing that the row itself shows, each with what is wrong.
    pub(super) async fn odd_columns(&self) -> anyhow::Result<Vec<(Uuid, String)>> {
        let pool = &self.postgres.pool;
        let columns: Vec<Columns> = sqlx::query_as(COLUMNS).fetch_all(pool).await?;
        let rows = self.catalogue().await?;
        let mut odd = Vec::new();
        let mut words = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, created_at, lat, lon, held) in columns {
            let Some(state) = rows.get(&id).and_then(|row| row.state.clone()) else { continue };
            let row = ListingCatalogRow::of(&serde_json::from_value::<Listing>(state)?)?;
            let due = due(&row);
            let (typed, due_typed) = ((created_at, lat, lon), (row.created_at, row.lat, row.lon));
            if held != due || typed != due_typed {
                odd.push((id, format!("{held} {typed:?} instead of {due} {due_typed:?}")));
            }
            let search = row.search.unwrap_or_default();
            words.0.push(id);
            words.1.push(search.title);
            words.2.push(search.keywords);
            words.3.push(search.description);
        }
        let others: Vec<Uuid> =
            sqlx::query_scalar(WORDS).bind(words.0).bind(words.1).bind(words.2).bind(words.3).fetch_all(pool).await?;
        odd.extend(others.into_iter().map(|id| (id, "other words than its listing".to_owned())));
        Ok(odd)
    }
}

fn due(row: &ListingCatalogRow) -> Value {
    let ListingCatalogRow { seller_id, status, visibility, title, categories, brand, condition, tags, attributes, price, .. } =
        row;
    let ListingCatalogRow { currency, available, .. } = row;
    json!({
        "seller_id": seller_id, "status": status, "visibility": visibility, "title": title, "categories": categories, "brand": brand,
        "condition": condition, "tags": tags, "attributes": attributes, "price": price.map(|price| price.to_string()),
        "currency": currency, "available": available,
    })
}
