//! Keeps the read models: consumes the events, writes OpenSearch, Redis and the schema `projection`, and stores dead letters for what
//! cannot be applied. Read it in the order of an event:

// 1. The process: its settings, and the servers that it talks to.
mod connections;
mod settings;

// 2. Before the first event: streams, durable consumers, index and partitions are as they must be.
mod provision;

// 3. Which generations there are, and one feed for each.
mod generations;
mod run;

// 4. An event: a source hands it out and acknowledges it, an applier applies it and judges the result.
mod applier;
mod dead_letters;
mod source_event;
mod sources;

// 5. What it is written to.
mod projection;
mod projections;

// 6. How it is doing.
mod metrics;
mod monitor;
mod running;
mod status;

use std::process::ExitCode;

use service::{
    ops,
    program::{exit_code, print_line},
    settings::parse,
    telemetry,
};

use crate::settings::{Cli, CliCommand};

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match parse::<Cli>().command {
        CliCommand::Run(settings) => run::run(settings).await,
        CliCommand::Provision(settings) => match telemetry::init_tool(&settings.log) {
            Ok(()) => provision::provision(&settings).await,
            Err(error) => Err(error),
        },
        CliCommand::Status(settings) => status::show(&settings).await,
        CliCommand::Healthcheck(settings) => ops::healthcheck(settings.ops_addr).await,
        CliCommand::Version => print_line(concat!("projector ", env!("CARGO_PKG_VERSION"))).map_err(Into::into),
    };
    exit_code("projector", outcome)
}
