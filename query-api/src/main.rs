use std::process::ExitCode;

use query_api::serve;
use query_api::settings::{Role, Settings};
use service::ops::healthcheck;
use service::program::{exit_code, print_line};
use service::settings;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match settings::parse::<Settings>().role {
        Role::Serve(settings) => serve::run(*settings).await,
        Role::Healthcheck(ops) => healthcheck(ops.ops_addr).await,
        Role::Version => print_line(concat!("query-api ", env!("CARGO_PKG_VERSION"))).map_err(Into::into),
    };
    exit_code("query-api", outcome)
}
