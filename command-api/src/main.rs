//! The write side of the marketplace. Read this crate in the order of a request:

// 1. The program is told what to be, and starts.
mod cli;
mod migrate;
mod serve;

// 2. A request arrives and is turned into a command.
mod caller;
mod http;

// 3. The command decides and writes, in one transaction.
mod app;
mod database;
mod idempotency;
mod inventory;
mod listings;
mod metrics;
mod outcome;
mod precondition;
mod refusal;
mod transaction;

// 4. Its events are committed with it, then leave for JetStream.
mod journal;
mod outbox;
mod relay;

// 5. Catalogues come in from files, through the same door as everybody.
mod import;

use std::process::ExitCode;

use service::clock::Clock;
use service::program::exit_code;
use service::stdout::tell;
use service::{ops, settings, telemetry};

use crate::cli::{Cli, Role};

#[tokio::main]
async fn main() -> ExitCode {
    let cli: Cli = settings::parse();
    exit_code("command-api", run(cli.role).await)
}

async fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Serve(settings) => serve::serve(settings).await,
        Role::Migrate(settings) => {
            telemetry::init_tool(&settings.log)?;
            migrate::migrate(&settings).await
        }
        Role::Import(settings) => {
            telemetry::init_tool(&settings.log)?;
            import::import(&settings).await
        }
        Role::Token(settings) => {
            let signer = settings.signing.required_signer(Clock::System)?;
            Ok(tell(signer.mint(settings.user, settings.roles().names(), settings.ttl)?)?)
        }
        Role::Healthcheck(settings) => ops::healthcheck(settings.ops_addr).await,
        Role::Version => Ok(tell(concat!("command-api ", env!("CARGO_PKG_VERSION")))?),
    }
}
