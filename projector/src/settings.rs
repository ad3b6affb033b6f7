//! Command-line arguments and environment variables.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use service::settings::{LogArgs, OpsArgs, Secret, duration, index_alias};

/// The ack deadline of an event that is being applied is extended three times within this.
const ACK_WAIT_LEAST: Duration = Duration::from_secs(1);
/// The port of `/health`, `/ready`, `/status` and `/metrics`.
const OPS_PORT: u16 = 9095;

service::secret!(pub DatabaseUrl: "DATABASE_URL", "database-url", ["postgres", "postgresql"], "Postgres, as role listings_projector");
service::secret!(pub NatsUrl: "NATS_URL", "nats-url", several ["nats", "tls"], "The broker; several with commas");
service::secret!(pub RedisUrl: "REDIS_URL", "redis-url", ["redis", "rediss"], "Redis, for pages");
service::secret!(pub OpenSearchUrl: "OPENSEARCH_URL", "opensearch-url", ["http", "https"], "OpenSearch, for search");

/// Keeps the read models of the marketplace up to date with its events.
#[derive(Debug, Parser)]
#[command(name = "projector", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Feed every projection from the stream, until stopped
    Run(RunSettings),
    /// Create or update streams, consumers, index template, index and alias, and check that every setting took effect
    Provision(ProvisionSettings),
    /// Show how far each projection is: lag, rate, held or not and why, dead letters
    Status(StatusSettings),
    /// Ask the running process whether it is ready
    Healthcheck(OpsArgs<OPS_PORT>),
    /// Show the version
    Version,
}

#[derive(Debug, Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub backoff: Backoff,
    #[command(flatten)]
    pub ops: OpsArgs<OPS_PORT>,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Args)]
pub struct ProvisionSettings {
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub consumers: Consumers,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Args)]
pub struct StatusSettings {
    #[command(flatten)]
    pub database: Secret<DatabaseUrl>,
    #[command(flatten)]
    pub nats: Secret<NatsUrl>,
    /// The operations port of a running projector, if not at `OPS_ADDR`: only it knows what is held, and why
    #[arg(long, value_name = "URL")]
    pub ops: Option<reqwest::Url>,
    #[command(flatten)]
    pub own: OpsArgs<OPS_PORT>,
    /// How the result looks
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// Where events come from and where they are written to.
#[derive(Debug, Args)]
pub struct Stores {
    #[command(flatten)]
    pub database: Secret<DatabaseUrl>,
    #[command(flatten)]
    pub nats: Secret<NatsUrl>,
    #[command(flatten)]
    pub redis: Secret<RedisUrl>,
    #[command(flatten)]
    pub opensearch: Secret<OpenSearchUrl>,
    /// The alias that searches read; generation n is an index of this name with -n behind it
    #[arg(long, env = "OPENSEARCH_INDEX", default_value = "listings", value_parser = index_alias)]
    pub opensearch_index: String,
}

/// How the broker hands out events.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Consumers")]
pub struct Consumers {
    /// An event that was neither answered nor asked more time for comes again after this
    #[arg(long, env = "ACK_WAIT", default_value = "30s", value_parser = ack_wait)]
    pub ack_wait: Duration,
    /// At most this many events of a projection are handed out and not yet answered
    #[arg(long, env = "MAX_ACK_PENDING", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(8..=100_000))]
    pub max_ack_pending: u32,
}

/// The broker takes zero for its own default.
fn ack_wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text)?;
    if wait < ACK_WAIT_LEAST { Err("must be 1s at least".to_owned()) } else { Ok(wait) }
}

/// When an event that failed is tried again.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Backoff")]
pub struct Backoff {
    /// The longest wait before the second try; it doubles with each further one, and what is waited is random below it
    #[arg(id = "BACKOFF_BASE", long = "backoff-base", env = "BACKOFF_BASE", default_value = "200ms", value_parser = duration)]
    pub base: Duration,
    /// No wait is longer
    #[arg(id = "BACKOFF_CAP", long = "backoff-cap", env = "BACKOFF_CAP", default_value = "30s", value_parser = duration)]
    pub cap: Duration,
    /// Tries before an event goes to the dead letters, if others succeed meanwhile
    #[arg(id = "BACKOFF_ATTEMPTS", long = "backoff-attempts", env = "BACKOFF_ATTEMPTS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
