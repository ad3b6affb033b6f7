//! The projections. A new one is a file beside these, its `mod` line, and a line in [`ALL`]: provisioning, running, metrics and
//! status are derived from that list.

pub mod listing_catalog;
pub mod listing_page;
pub mod listing_search;
pub mod stock_levels;

mod postgres;

use std::{pin::Pin, sync::Arc};

use events::AggregateKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    connections::{Dependencies, StoreClients},
    generations::Generation,
    projection::Projection,
    running::RunningGeneration,
    sources::live::LiveSource,
};

/// Every projection.
pub static ALL: &[ProjectionEntry] = &[
    entry::<listing_search::ListingSearch>(),
    entry::<listing_page::ListingPages>(),
    entry::<listing_catalog::ListingCatalog>(),
    entry::<stock_levels::StockLevels>(),
];

/// A projection, for code that handles all of them.
#[derive(Debug, Clone, Copy)]
pub struct ProjectionEntry {
    pub name: &'static str,
    pub aggregates: &'static [AggregateKind],
    /// Makes what the store of these generations needs: [`Projection::provision`].
    pub provision: ProvisionStore,
    /// Feeds a generation from its durable consumer, until stopped.
    pub feed: fn(Dependencies, Arc<RunningGeneration>, CancellationToken) -> JoinHandle<anyhow::Result<()>>,
}

/// Returns one line per thing that was looked at.
pub type ProvisionStore =
    for<'a> fn(&'a StoreClients, &'a [Generation]) -> Pin<Box<dyn Future<Output = anyhow::Result<Vec<String>>> + Send + 'a>>;

const fn entry<P: Projection>() -> ProjectionEntry {
    ProjectionEntry {
        name: P::NAME,
        aggregates: P::AGGREGATES,
        provision: |stores, generations| Box::pin(P::provision(stores, generations)),
        feed: |dependencies, running, stop| tokio::spawn(LiveSource::<P>::new(dependencies, running).run(stop)),
    }
}

/// Finds a projection by its name; `None` for one that only another version of this program knows.
pub fn named(name: &str) -> Option<ProjectionEntry> {
    ALL.iter().copied().find(|projection| projection.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_that_a_subject_can_carry() {
        for (at, projection) in ALL.iter().enumerate() {
            assert!(projection.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", projection.name);
            assert!(ALL[..at].iter().all(|other| other.name != projection.name), "{}", projection.name);
            assert!(!projection.aggregates.is_empty(), "{}", projection.name);
        }
    }
}
