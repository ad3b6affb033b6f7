//! The metrics of database connection pools, read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A connection pool, of any library.
pub struct Pool {
    name: &'static str,
    open: Box<dyn Fn() -> i64 + Send + Sync>,
    idle: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl Pool {
    pub fn new(
        name: &'static str,
        open: impl Fn() -> i64 + Send + Sync + 'static,
        idle: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Self {
        Self { name, open: Box::new(open), idle: Box::new(idle) }
    }
}

/// `db_connections_open{pool}` and `db_connections_idle{pool}`.
pub fn register_pools(registry: &mut Registry, pools: Vec<Pool>) {
    registry.register_collector(Box::new(Pools(pools)));
}

struct Pools(Vec<Pool>);

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|pool| pool.name)).finish()
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut open = encoder.encode_descriptor("db_connections_open", "Open database connections", None, MetricType::Gauge)?;
        for pool in &self.0 {
            ConstGauge::new((pool.open)()).encode(open.encode_family(&[("pool", pool.name)])?)?;
        }
        let mut idle = encoder.encode_descriptor(
            "db_connections_idle",
            "Open database connections that nobody uses",
            None,
            MetricType::Gauge,
        )?;
        for pool in &self.0 {
            ConstGauge::new((pool.idle)()).encode(idle.encode_family(&[("pool", pool.name)])?)?;
        }
        Ok(())
    }
}
