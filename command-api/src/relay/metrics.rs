//! How much waits to be published, for how long, and how much was.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Often enough for an alert, seldom enough to cost nothing.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const SAMPLE_WITHIN: Duration = Duration::from_secs(5);

/// Counting stops here: beyond it only the order of magnitude matters, and counting costs.
const COUNTED: i64 = 200_000;

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    unpublished: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    published: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("outbox_unpublished", "Events that are committed and not yet published", metrics.unpublished.clone());
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest event that is not yet published",
            Unit::Seconds,
            metrics.oldest_age.clone(),
        );
        registry.register("relay_published", "Events that the broker acknowledged to this process", metrics.published.clone());
        metrics
    }

    pub(super) fn published(&self) {
        self.published.inc();
    }
}

/// Looks at the outbox now and then, until told to stop. While Postgres is away the gauges keep what they last showed.
pub(super) async fn sample(database: PgConnectOptions, metrics: Metrics, stop: CancellationToken) {
    let database = database.application_name("listings-relay-metrics");
    let mut connection: Option<PgConnection> = None;
    while stop.run_until_cancelled(tokio::time::sleep(SAMPLE_EVERY)).await.is_some() {
        let looked = stop.run_until_cancelled(timeout(SAMPLE_WITHIN, look(&database, connection.take()))).await;
        if let Some(Ok(Ok((still, unpublished, oldest)))) = looked {
            metrics.unpublished.set(unpublished);
            metrics.oldest_age.set(oldest);
            connection = Some(still);
        }
    }
}

async fn look(database: &PgConnectOptions, connection: Option<PgConnection>) -> sqlx::Result<(PgConnection, i64, f64)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => database.connect().await?,
    };
    let row = sqlx::query!(
        r#"select (select count(*) from (select 1 from command.outbox limit $1) as counted) as "unpublished!",
                  coalesce((select extract(epoch from clock_timestamp() - min(e.recorded_at))::float8
                      from generate_series(0, $2::int - 1) as own (shard)
                     cross join lateral (select seq from command.outbox o where o.shard = own.shard order by seq limit 1) as head
                     cross join lateral (select recorded_at from command.events where seq = head.seq offset 0) as e), 0) as "oldest!""#,
        COUNTED,
        i32::from(super::SHARDS),
    )
    .fetch_one(&mut connection)
    .await?;
    Ok((connection, row.unpublished, row.oldest))
}
