//! Command-line arguments and environment variables of each subcommand. Every variable is listed in `--help`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use events::Roles;
use reqwest::Url;
use service::bearer::{JwksSource, Signer, Verifier};
use service::clock::Clock;
use service::settings::{self, HttpArgs, LogArgs, OpsArgs, OptionalSecret, Secret, Switch};
use uuid::Uuid;

const HTTP_PORT: u16 = 8086;
const OPS_PORT: u16 = 9093;

service::secret!(pub DatabaseUrl: "DATABASE_URL", "database-url", ["postgres", "postgresql"],
    "Postgres, as role listings_command");
service::secret!(pub MigrateDatabaseUrl: "MIGRATE_DATABASE_URL", "migrate-database-url", ["postgres", "postgresql"],
    "Postgres, as role listings_owner; DATABASE_URL if not set");
service::secret!(pub ListingsToken: "LISTINGS_TOKEN", "token", [],
    "A token to import with; without it one is made with JWT_PRIVATE_KEY_FILE");
service::secret!(pub NatsUrl: "NATS_URL", "nats-url", several ["nats", "tls"],
    "NATS, where the relay publishes; several with commas. Not needed with RELAY=off");

/// The write side of the marketplace: takes commands, commits them with their events, and publishes those.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Answer commands and publish their events
    Serve(Serve),
    /// Bring the database to the present schema, or say where it is
    Migrate(Migrate),
    /// Send listings from a file to a running command-api
    Import(Import),
    /// Print a token for development
    Token(Token),
    /// Ask a running command-api whether it is ready
    Healthcheck(OpsArgs<OPS_PORT>),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub http: HttpArgs<HTTP_PORT>,
    #[command(flatten)]
    pub ops: OpsArgs<OPS_PORT>,
    #[command(flatten)]
    pub database: Secret<DatabaseUrl>,

    /// How many database connections single commands share
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: u32,

    #[command(flatten)]
    pub nats: OptionalSecret<NatsUrl>,

    /// Run the relay in this process
    #[arg(long, env = "RELAY", default_value = "on")]
    pub relay: Switch,

    #[command(flatten)]
    pub jwt: Jwt,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Serve {
    /// Where the relay publishes; `None` if this process has no relay.
    pub fn nats_urls(&self) -> anyhow::Result<Option<Vec<String>>> {
        if !self.relay.is_on() {
            return Ok(None);
        }
        let url = self.nats.0.as_ref().context("NATS_URL is not set; without a broker set RELAY=off")?;
        Ok(Some(url.urls()))
    }
}

/// Tokens: whose are believed, and who signs ours.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub struct Jwt {
    #[command(flatten)]
    pub signing: Signing,

    /// The keys that tokens are verified with: a file or URL; if not set, the public half of `JWT_PRIVATE_KEY_FILE`
    #[arg(long, env = "JWT_JWKS")]
    pub jwt_jwks: Option<String>,
}

impl Jwt {
    /// With another's key set or our own; one of them there must be.
    pub fn verifier(&self, signer: Option<&Signer>, clock: Clock) -> anyhow::Result<Verifier> {
        let source = match (settings::filled(self.jwt_jwks.clone()), signer) {
            (Some(named), _) => named.parse().map_err(|why| anyhow::anyhow!("JWT_JWKS {why}"))?,
            (None, Some(signer)) => signer.source(),
            (None, None) => anyhow::bail!("set JWT_PRIVATE_KEY_FILE, or JWT_JWKS if others sign the tokens"),
        };
        Ok(self.signing.verifying(source, clock))
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
pub struct Signing {
    /// The Ed25519 key (PKCS#8 PEM) that tokens are signed with
    #[arg(long, env = "JWT_PRIVATE_KEY_FILE")]
    pub jwt_private_key_file: Option<PathBuf>,

    /// Required issuer (`iss`) of tokens; checked only if set
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: Option<String>,

    /// Required audience (`aud`) of tokens; checked only if set
    #[arg(long, env = "JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
}

impl Signing {
    /// `None` if no key is set.
    pub fn signer(&self, clock: Clock) -> anyhow::Result<Option<Signer>> {
        let path = self.jwt_private_key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        path.map(|path| Signer::read(path, self.issuer().as_deref(), self.audience().as_deref(), clock)).transpose()
    }

    pub fn required_signer(&self, clock: Clock) -> anyhow::Result<Signer> {
        self.signer(clock)?.context("JWT_PRIVATE_KEY_FILE is not set")
    }

    fn verifying(&self, source: JwksSource, clock: Clock) -> Verifier {
        Verifier::new(source, self.issuer().as_deref(), self.audience().as_deref(), clock)
    }

    fn issuer(&self) -> Option<String> {
        settings::filled(self.jwt_issuer.clone())
    }

    fn audience(&self) -> Option<String> {
        settings::filled(self.jwt_audience.clone())
    }
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(subcommand)]
    pub what: Option<MigrateWhat>,
    #[command(flatten)]
    pub owner: OptionalSecret<MigrateDatabaseUrl>,
    #[command(flatten)]
    pub database: OptionalSecret<DatabaseUrl>,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Migrate {
    /// And the variable that it is from.
    pub fn url(&self) -> anyhow::Result<(&'static str, &str)> {
        let own = self.owner.0.as_ref().map(|url| ("MIGRATE_DATABASE_URL", url.expose()));
        let url = own.or_else(|| self.database.0.as_ref().map(|url| ("DATABASE_URL", url.expose())));
        url.context("MIGRATE_DATABASE_URL is not set")
    }
}

#[derive(Debug, Subcommand)]
pub enum MigrateWhat {
    /// List the migrations and whether each was applied
    Status {
        #[arg(long, default_value = "text")]
        output: Output,
    },
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct Import {
    /// NDJSON, one listing a line; `-` reads standard input
    pub file: PathBuf,

    /// The command-api that takes them
    #[arg(long, default_value = "http://127.0.0.1:8086")]
    pub url: Url,

    /// Whose listings they are where a line does not say; if not set, the token's bearer's
    #[arg(long)]
    pub seller: Option<Uuid>,

    /// Where refused lines go with their reasons; if not set, beside FILE
    #[arg(long)]
    pub rejects: Option<PathBuf>,

    /// How many batches are on their way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,

    #[command(flatten)]
    pub token: OptionalSecret<ListingsToken>,
    #[command(flatten)]
    pub signing: Signing,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Import {
    /// Who has to be named in each line; a token of our own is made for the seller, and needs no naming.
    pub fn seller_to_name(&self) -> Option<Uuid> {
        self.seller.filter(|_| self.token.0.is_some())
    }
}

#[derive(Debug, Args)]
pub struct Token {
    /// User id in the token (`sub`)
    #[arg(long)]
    pub user: Uuid,

    /// `user`, `seller`, `admin` or `service`; several with commas
    #[arg(long, required = true, value_delimiter = ',')]
    pub role: Vec<Roles>,

    /// How long it is good for
    #[arg(long, default_value = "12h", value_parser = settings::duration)]
    pub ttl: Duration,

    #[command(flatten)]
    pub signing: Signing,
}

impl Token {
    pub fn roles(&self) -> Roles {
        self.role.iter().copied().fold(Roles::NONE, Roles::or)
    }
}
