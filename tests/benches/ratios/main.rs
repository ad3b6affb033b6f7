//! Benchmarks whose results are ratios to a baseline measured in the same run. The machines that run this are shared and noisy; a
//! ratio varies less than an absolute speed.
//!
//! `make bench` builds everything for release, starts servers that sync to disk, and runs this. Arguments select benchmarks:
//! create, drain, catch-up, get, search, freshness; the default is all of them.

#![expect(clippy::cast_precision_loss, reason = "rates and shares are shown with two digits")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts and indices")]

mod catch_up;
mod create;
mod drain;
mod freshness;
mod get;
mod load;
mod search;
mod stock_up;
mod table;

use table::Line;

/// Log filter: no line per request, but the line with the listening address, which the harness reads.
const QUIET: &str = "warn,service::serve=info";

/// How often a benchmark measures our program and the baseline in turn.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [bare, redis] = arguments.as_slice()
        && bare == get::BARE
    {
        return get::serve_bare(redis).await;
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let mut lines: Vec<Line> = Vec::new();
    if wanted("create") {
        lines.push(create::measure().await?);
    }
    if wanted("drain") {
        lines.push(drain::measure().await?);
    }
    if wanted("catch-up") {
        lines.extend(catch_up::measure().await?);
    }
    if wanted("get") {
        lines.extend(get::measure().await?);
    }
    if wanted("search") {
        lines.push(search::measure().await?);
    }
    if wanted("freshness") {
        lines.extend(freshness::measure().await?);
    }
    table::print(&lines);
    Ok(())
}
