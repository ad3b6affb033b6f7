//! The harness of the acceptance scenarios: a whole marketplace for each of them, made of real processes and real servers.
//!
//! A scenario has a database and an OpenSearch alias of its own on the shared servers of the test run, a NATS server and a
//! Redis of its own, and command-api, query-api and projector as processes from the target folder. It speaks in the words of
//! the business, waits for states and never for a time, and may kill, stop and wake any process, or break any connection
//! on its way.
//!
//! `make test` starts the shared servers and says where they are; without it every scenario fails and says so.

// 1. Where a scenario takes place, and what it runs on.
mod place;
mod process;
pub mod servers;

// 2. The programs, and the wires between them and the servers.
pub mod link;
pub mod program;

// 3. All of it together: started, settled, checked, ended.
pub mod agreement;
pub mod marketplace;
pub mod settle;

// 4. Who acts in a scenario, what they send, and what they are told.
pub mod answer;
pub mod keys;
pub mod listings;
pub mod people;

// 5. What a scenario may look into behind the programs' backs.
pub mod stores;

// 6. The one place that knows how to wait.
pub mod until;

pub use answer::Answer;
pub use link::{Direction, Hold, Link, Moment};
pub use listings::{ListingDraft, a_listing};
pub use marketplace::{Builder, Dependency, Marketplace};
pub use people::{Person, user};
pub use program::{Name, Program};
pub use until::{until, until_eq, until_some};
