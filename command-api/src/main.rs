//! The write side of the marketplace. Read this crate in the order of a request:

// 1. The program reads its role and settings, and starts.
mod cli;
mod migrate;
mod serve;

// 2. A request arrives and is turned into a command.
mod http;

// 3. The command decides and writes, in one transaction.
mod inventory;
mod listings;

// 4. What all commands share, and no transport.
mod actor;
mod command;
mod idempotency;
mod metrics;
mod transaction;
mod validation;

// 5. The tables: state of each noun, journal and outbox in one statement.
mod database;
mod journal;
mod tables;

// 6. Committed events leave for JetStream.
mod outbox;
mod relay;

// 7. Catalogues come in from files, through the HTTP API.
mod import;

#[cfg(test)]
mod test_database;

use std::process::ExitCode;

use service::clock::Clock;
use service::program::{exit_code, print_line};
use service::{ops, settings, telemetry};

use crate::cli::{Cli, CliCommand};

#[tokio::main]
async fn main() -> ExitCode {
    let cli: Cli = settings::parse();
    exit_code("command-api", run(cli.command).await)
}

async fn run(command: CliCommand) -> anyhow::Result<()> {
    match command {
        CliCommand::Serve(settings) => serve::serve(settings).await,
        CliCommand::Migrate(settings) => {
            telemetry::init_tool(&settings.log)?;
            migrate::migrate(&settings).await
        }
        CliCommand::Import(settings) => {
            telemetry::init_tool(&settings.log)?;
            import::import(&settings).await
        }
        CliCommand::Token(settings) => {
            let signer = settings.signing.required_signer(Clock::System)?;
            Ok(print_line(signer.mint(settings.user, settings.roles().names(), settings.ttl)?)?)
        }
        CliCommand::Healthcheck(settings) => ops::healthcheck(settings.ops_addr).await,
        CliCommand::Version => Ok(print_line(concat!("command-api ", env!("CARGO_PKG_VERSION")))?),
    }
}
