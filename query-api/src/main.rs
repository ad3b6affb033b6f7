//! The read side of the marketplace: answers from the projections alone. One file per question.

// 1. A question arrives.
mod http;

// 2. It is answered, for those who may see the answer.
mod cursor;
mod filters;
mod get_listing;
mod get_stock;
mod list_listings;
mod question;
mod search;
mod visibility;

// 3. From this process, or by a store that has the required writes.
mod consistency;
mod invalidations;
mod page_cache;
mod stored_aggregate;

// 4. The stores, any of which may be unavailable.
mod breaker;
mod catalog;
mod database;
mod generations;
mod opensearch;
mod redis_pages;
mod refreshes;
mod store_guard;

// 5. The process.
mod app;
mod metrics;
mod serve;
mod settings;

use std::process::ExitCode;

use service::ops::healthcheck;
use service::program::{exit_code, print_line};

use crate::settings::{CliCommand, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match service::settings::parse::<Settings>().command {
        CliCommand::Serve(settings) => serve::run(*settings).await,
        CliCommand::Healthcheck(ops) => healthcheck(ops.ops_addr).await,
        CliCommand::Version => print_line(concat!("query-api ", env!("CARGO_PKG_VERSION"))).map_err(Into::into),
    };
    exit_code("query-api", outcome)
}
