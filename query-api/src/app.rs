//! What every query needs: the stores, the caches of this process, the serving generations.

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use service::bearer::Verifier;
use service::clock::Clock;
use service::metrics::{Pool, register_pools};
use service::ops::{Check, Report};
use service::settings::filled;

use crate::database::{Database, POSTGRES};
use crate::generations::Generations;
use crate::metrics::Metrics;
use crate::opensearch::{OPENSEARCH, SearchIndex};
use crate::page_cache::PageCache;
use crate::redis_pages::{REDIS, RedisPages};
use crate::refreshes::Refreshes;
use crate::settings::ServeSettings;

/// Cloned for every request: one pointer.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub database: Database,
    pub redis: RedisPages,
    pub search: SearchIndex,
    pub refreshes: Refreshes,
    pub pages: Arc<PageCache>,
    pub generations: Generations,
    pub metrics: Metrics,
    pub verifier: Verifier,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Makes no connection: stores may be unavailable while the program starts.
    pub fn new(settings: &ServeSettings, registry: &mut Registry) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry);
        let errors = || metrics.errors.clone();
        let database = Database::new(
            settings.database.expose(),
            settings.database_max_connections,
            metrics.breaker(POSTGRES),
            errors(),
            metrics.queries.clone(),
        )?;
        let pool = database.pool.clone();
        register_pools(
            registry,
            vec![Pool::new(
                "main",
                {
                    let pool = pool.clone();
                    move || pool.size().into()
                },
                move || i64::try_from(pool.num_idle()).unwrap_or(i64::MAX),
            )],
        );
        let issuer = filled(settings.jwt_issuer.clone());
        let audience = filled(settings.jwt_audience.clone());
        Ok(Self(Arc::new(Parts {
            database,
            redis: RedisPages::new(settings.redis.expose(), metrics.breaker(REDIS), errors())?,
            search: SearchIndex::new(
                settings.opensearch.expose(),
                &settings.opensearch_index,
                metrics.breaker(OPENSEARCH),
                errors(),
            )?,
            refreshes: Refreshes::default(),
            pages: Arc::new(PageCache::new(settings.page_cache.is_on(), metrics.local.clone())),
            generations: Generations::default(),
            verifier: Verifier::new(settings.jwt_jwks.clone(), issuer.as_deref(), audience.as_deref(), Clock::System),
            metrics,
        })))
    }

    /// Ready while pages and searches can be answered from somewhere: (Redis or Postgres) and (OpenSearch or Postgres).
    pub async fn readiness(&self) -> Report {
        let (postgres, redis, opensearch) = tokio::join!(
            Check::of_store(POSTGRES, self.database.ping()),
            Check::of_store(REDIS, self.redis.ping()),
            Check::of_store(OPENSEARCH, self.search.ping()),
        );
        let ready = postgres.is_passed() || (redis.is_passed() && opensearch.is_passed());
        Report::when(ready, [postgres, redis, opensearch].map(Check::optional).into())
    }
}
