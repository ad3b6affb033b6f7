//! The read models that are kept. A new one is a file beside these, a line in [`ALL`] and one in `run::start`.

pub mod listing_catalog;
pub mod listing_page;
pub mod listing_search;
pub mod stock_levels;

mod postgres;

use events::AggregateKind;

pub use self::{
    listing_catalog::ListingCatalog, listing_page::ListingPage, listing_search::ListingSearch, stock_levels::StockLevels,
};
use crate::projection::Projection;

/// What there is to know of a projection before it runs.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub name: &'static str,
    pub aggregates: &'static [AggregateKind],
}

/// All of them.
pub const ALL: [About; 4] = [about::<ListingSearch>(), about::<ListingPage>(), about::<ListingCatalog>(), about::<StockLevels>()];

const fn about<P: Projection>() -> About {
    About { name: P::NAME, aggregates: P::AGGREGATES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_that_a_subject_can_carry() {
        for (at, about) in ALL.iter().enumerate() {
            assert!(about.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", about.name);
            assert!(ALL[..at].iter().all(|other| other.name != about.name), "{}", about.name);
            assert!(!about.aggregates.is_empty(), "{}", about.name);
        }
    }
}
