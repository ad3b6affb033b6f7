//! The servers of a scenario: a database and an alias on the shared Postgres and OpenSearch, and its own NATS and Redis.

mod nats;
mod opensearch;
mod postgres;
mod redis;

use std::thread;

pub use nats::Nats;
pub use opensearch::OpenSearch;
pub use postgres::Postgres;
pub use redis::Redis;

/// Removes a scenario's data from a shared server and waits for that. Runs on a thread and runtime of its own, because it is
/// called from `Drop`, possibly while the scenario's thread is unwinding. A failure is printed.
fn run_cleanup(cleanup: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let cleaner = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(cleanup)
    });
    if let Ok(Err(error)) = cleaner.join() {
        eprintln!("The scenario's data could not be removed from a shared server: {error:#}");
    }
}
