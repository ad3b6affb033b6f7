//! The servers that a scenario runs on: a database and an alias on the shared ones, a broker and a cache of its own.

mod nats;
mod opensearch;
mod postgres;
mod redis;

use std::thread;

pub use nats::Nats;
pub use opensearch::OpenSearch;
pub use postgres::Postgres;
pub use redis::Redis;

/// Cleans up on a shared server, whichever way the scenario ended: on a thread of its own, because the scenario's may be
/// unwinding.
fn after_the_scenario(cleaning: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let cleaner = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(cleaning)
    });
    if let Ok(Err(error)) = cleaner.join() {
        eprintln!("Something of the scenario stays behind: {error:#}");
    }
}
