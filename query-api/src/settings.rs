//! The settings of query-api, from its environment.

use clap::{Args, Parser, Subcommand};
use service::bearer::JwksSource;
use service::secret;
use service::settings::{HttpArgs, LogArgs, OpsArgs, Secret, Switch, index_alias};

/// The read side of the marketplace: answers reads and searches from the projections.
#[derive(Debug, Parser)]
#[command(name = "query-api", version)]
pub struct Settings {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Answer requests until SIGTERM
    Serve(Box<ServeSettings>),
    /// Exit 0 if the program on this machine's operations port is ready, else 1
    Healthcheck(OpsArgs<OPS_PORT>),
    /// Print the version
    Version,
}

const HTTP_PORT: u16 = 8087;
const OPS_PORT: u16 = 9094;

secret!(pub DatabaseUrl: "DATABASE_URL", "database-url", ["postgres", "postgresql"], "Postgres, as role listings_query");
secret!(pub RedisUrl: "REDIS_URL", "redis-url", ["redis", "rediss", "redis+unix", "unix"], "Redis, which stores the pages");
secret!(pub NatsUrl: "NATS_URL", "nats-url", several ["nats", "tls"], "NATS, whose events invalidate cached pages; several with commas");
secret!(pub OpenSearchUrl: "OPENSEARCH_URL", "opensearch-url", ["http", "https"], "OpenSearch, which answers searches");

#[derive(Debug, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    pub http: HttpArgs<HTTP_PORT>,
    #[command(flatten)]
    pub ops: OpsArgs<OPS_PORT>,
    #[command(flatten)]
    pub database: Secret<DatabaseUrl>,
    /// Most connections to Postgres
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: u32,
    #[command(flatten)]
    pub redis: Secret<RedisUrl>,
    #[command(flatten)]
    pub nats: Secret<NatsUrl>,
    #[command(flatten)]
    pub opensearch: Secret<OpenSearchUrl>,
    /// The alias of the serving search index
    #[arg(long, env = "OPENSEARCH_INDEX", default_value = "listings", value_parser = index_alias)]
    pub opensearch_index: String,
    /// The public keys of tokens (JWKS): a file or a URL
    #[arg(long, env = "JWT_JWKS", default_value = "http://127.0.0.1:8086/.well-known/jwks.json")]
    pub jwt_jwks: JwksSource,
    /// The issuer whose tokens are accepted; empty: any issuer with such a key
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// The audience that a token must name; empty: any
    #[arg(long, env = "JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Whether pages are cached in this process for a second
    #[arg(long, env = "PAGE_CACHE", default_value = "on")]
    pub page_cache: Switch,
    #[command(flatten)]
    pub log: LogArgs,
}
