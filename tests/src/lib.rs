//! Test harness of the acceptance scenarios: starts a complete marketplace of real processes and real servers for each one.
//!
//! Each scenario has its own database and OpenSearch alias on the shared servers of the test run, its own NATS server and
//! Redis, and runs command-api, query-api and projector as processes from the target folder. A scenario calls business-level
//! methods, waits for states and never for a fixed time, and can kill, pause and resume any process or break any connection.
//!
//! `make test` starts the shared servers and passes their addresses in environment variables. Without these variables every
//! scenario fails with an error that names the missing one.

// 1. The scenario's folder, its child processes, and its servers.
mod place;
mod process;
pub mod servers;

// 2. The programs under test, and the TCP proxies between them and the servers.
pub mod link;
pub mod program;

// 3. The complete marketplace: start, wait until settled, check that all stores agree, stop.
pub mod agreement;
pub mod marketplace;
pub mod settle;

// 4. The users of a scenario, their requests and the responses.
pub mod answer;
pub mod keys;
pub mod listings;
pub mod people;

// 5. Direct reads of the stores, which bypass the programs.
pub mod stores;

// 6. Polling with a timeout. Nothing else in the harness waits.
pub mod until;

pub use answer::Answer;
pub use link::{Direction, Hold, Link, Moment};
pub use listings::{ListingDraft, a_listing};
pub use marketplace::{Builder, Dependency, Marketplace};
pub use people::{Person, user};
pub use program::{Name, Program};
pub use until::{until, until_eq, until_some};
