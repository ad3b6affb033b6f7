use query_api::serve;
use query_api::settings::{Role, Settings};
use service::ops::healthcheck;
use service::settings;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match settings::parse::<Settings>().role {
        Role::Serve(settings) => serve::run(*settings).await,
        Role::Healthcheck(ops) => healthcheck(ops.ops_addr).await,
        Role::Version => {
            println!("query-api {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}
