//! Waits until `projection.listings` has what a caller has seen.

use events::{Aggregate as _, Listing};
use uuid::Uuid;

use crate::app::App;
use crate::consistency::{Consistency, Freshness, Next, NotYet};
use crate::dependency::Unanswered;

/// Of what the caller has seen only the listings matter: the catalogue takes nothing from other aggregates.
pub async fn wait_for<E>(app: &App, consistency: &Consistency) -> Result<Freshness, E>
where
    E: From<NotYet> + From<Unanswered>,
{
    let seen = consistency.entries().iter().filter(|(key, _)| key.kind == Listing::KIND);
    let (ids, versions): (Vec<Uuid>, Vec<i64>) = seen.map(|(key, version)| (key.id, version.cast_signed())).unzip();
    if ids.is_empty() {
        return Ok(Freshness::Fresh);
    }
    let mut patience = consistency.patience();
    loop {
        let statement = sqlx::query_scalar!(
            r#"select not exists (
                 select from unnest($1::uuid[], $2::bigint[]) as seen (id, version)
                  where not exists (select from projection.listings as held where held.id = seen.id and held.version >= seen.version)
               ) as "arrived!""#,
            &ids,
            &versions
        );
        if app.database.ask("consistency", statement.fetch_one(&app.database.pool)).await? {
            return Ok(Freshness::Fresh);
        }
        if let Next::MakeDo(freshness) = patience.pause().await? {
            return Ok(freshness);
        }
    }
}
