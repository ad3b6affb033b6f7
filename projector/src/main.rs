//! Keeps the read models: consumes the events, writes OpenSearch, Redis and the schema `projection`, and deals with what
//! cannot be applied. Read it in the order of an event:

// 1. The process: what it is told, and what it talks to.
mod connections;
mod settings;

// 2. Before the first event: streams, consumers and index are as they must be.
mod provision;

// 3. Which generations there are; one consumer feeds each.
mod generations;
mod run;

// 4. An event: decode, apply, judge, answer the broker.
mod consumer;
mod dead_letters;
mod delivery;
mod mass_poison;
mod retry;
mod verdict;

// 5. What it is written to.
mod projection;
mod projections;

// 6. How it is doing.
mod feed;
mod metrics;
mod monitor;
mod status;

use std::process::ExitCode;

use service::{
    ops,
    program::{exit_code, print_line},
    settings::parse,
    telemetry,
};

use crate::settings::{Cli, Role};

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match parse::<Cli>().role {
        Role::Run(settings) => run::run(settings).await,
        Role::Provision(settings) => match telemetry::init_tool(&settings.log) {
            Ok(()) => provision::provision(&settings).await,
            Err(error) => Err(error),
        },
        Role::Status(settings) => status::show(&settings).await,
        Role::Healthcheck(settings) => ops::healthcheck(settings.ops_addr).await,
        Role::Version => print_line(concat!("projector ", env!("CARGO_PKG_VERSION"))).map_err(Into::into),
    };
    exit_code("projector", outcome)
}
