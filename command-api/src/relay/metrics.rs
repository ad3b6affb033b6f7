//! Metrics of the relay: the backlog, its age, what delays it, and what was published.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RelayStatus;
use super::session::LOCK_CLASS;

/// Often enough for an alert, seldom enough to cost nothing.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const SAMPLE_WITHIN: Duration = Duration::from_secs(5);

/// Upper bound of the counted backlog: above it only the order of magnitude matters, and counting is expensive.
const COUNTED: i64 = 200_000;

#[derive(Debug, Clone, Default)]
pub struct RelayMetrics {
    unpublished: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    unowned: Gauge,
    deferred: Gauge,
    diverged: Gauge,
    repairing: Gauge,
    published: Counter,
}

impl RelayMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("outbox_unpublished", "Events that are committed and not yet published", metrics.unpublished.clone());
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest event that is not yet published",
            Unit::Seconds,
            metrics.oldest_age.clone(),
        );
        registry.register("relay_shards_unowned", "Shards that no process publishes", metrics.unowned.clone());
        registry.register("relay_set_aside", "Aggregates that this process cannot publish for now", metrics.deferred.clone());
        registry.register(
            "relay_diverged",
            "Aggregates with another history in the stream than in the journal, as far as this process knows",
            metrics.diverged.clone(),
        );
        registry.register("relay_repairing", "Shards that this process repairs from the journal", metrics.repairing.clone());
        registry.register("relay_published", "Events that the broker acknowledged to this process", metrics.published.clone());
        metrics
    }

    pub(super) fn published(&self) {
        self.published.inc();
    }
}

/// Samples the relay's status and the outbox until `stop`. While Postgres is unavailable, the gauges of the outbox keep their last
/// values.
pub(super) async fn sample(database: PgConnectOptions, metrics: RelayMetrics, status: RelayStatus, stop: CancellationToken) {
    let database = database.application_name("listings-relay-metrics");
    let mut connection: Option<PgConnection> = None;
    while stop.run_until_cancelled(tokio::time::sleep(SAMPLE_EVERY)).await.is_some() {
        let totals = status.totals();
        metrics.deferred.set(totals.deferred);
        metrics.diverged.set(totals.diverged);
        metrics.repairing.set(totals.repairing);
        let sampled = stop.run_until_cancelled(timeout(SAMPLE_WITHIN, sample_outbox(&database, connection.take()))).await;
        if let Some(Ok(Ok((open, outbox)))) = sampled {
            metrics.unpublished.set(outbox.unpublished);
            metrics.oldest_age.set(outbox.oldest);
            metrics.unowned.set(i64::from(super::SHARDS) - outbox.owned);
            connection = Some(open);
        }
    }
}

struct OutboxSample {
    unpublished: i64,
    /// Age of the oldest unpublished event, in seconds.
    oldest: f64,
    /// Number of shards that have an owner.
    owned: i64,
}

async fn sample_outbox(
    database: &PgConnectOptions,
    connection: Option<PgConnection>,
) -> sqlx::Result<(PgConnection, OutboxSample)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => database.connect().await?,
    };
    let outbox = sqlx::query_as!(
        OutboxSample,
        r#"select (select count(*) from (select 1 from command.outbox limit $1) as counted) as "unpublished!",
                  coalesce((select extract(epoch from clock_timestamp() - min(e.recorded_at))::float8
                      from generate_series(0, $2::int - 1) as own (shard)
                     cross join lateral (select seq from command.outbox o where o.shard = own.shard order by seq limit 1) as head
                     cross join lateral (select recorded_at from command.events where seq = head.seq offset 0) as e), 0) as "oldest!",
                  (select count(*) from pg_locks where locktype = 'advisory' and granted and classid::bigint = $3 and objid::bigint < $2
                      and database = (select oid from pg_database where datname = current_database())) as "owned!""#,
        COUNTED,
        i32::from(super::SHARDS),
        i64::from(LOCK_CLASS),
    )
    .fetch_one(&mut connection)
    .await?;
    Ok((connection, outbox))
}
