//! Where each kind of aggregate is stored, for the agreement check. A new kind of aggregate adds its row to [`KINDS`].

use std::collections::BTreeMap;

use anyhow::Context as _;
use events::stock::StockLevel;
use events::{Aggregate as _, AggregateKind, Listing, Stock};
use futures_util::future::BoxFuture;
use uuid::Uuid;
use views::{listing_page, listing_search};

use crate::marketplace::Marketplace;
use crate::stores::Held;

/// What one store holds of the aggregates of one kind.
pub(super) struct Contents {
    /// The table, or the projection as dead letters name it.
    pub name: &'static str,
    pub held: BTreeMap<Uuid, Held>,
    /// What the store should hold when this is the last state.
    pub shows: fn(Held) -> anyhow::Result<Held>,
    /// A cache may lack any aggregate; what it holds must be right.
    pub is_cache: bool,
    /// The write side holds no aggregate without an event. Projections may: scenarios publish events that no command made.
    pub is_write_side: bool,
}

impl Contents {
    pub(super) fn projection(name: &'static str, held: BTreeMap<Uuid, Held>) -> Self {
        Self { name, held, shows: Ok, is_cache: false, is_write_side: false }
    }

    pub(super) fn cache(name: &'static str, held: BTreeMap<Uuid, Held>) -> Self {
        Self { is_cache: true, ..Self::projection(name, held) }
    }

    pub(super) fn write_side(name: &'static str, held: BTreeMap<Uuid, Held>) -> Self {
        Self { is_write_side: true, ..Self::projection(name, held) }
    }
}

type Stores<'m> = BoxFuture<'m, anyhow::Result<Vec<Contents>>>;
type ReadStores = for<'m> fn(&'m Marketplace, &'m [Uuid]) -> Stores<'m>;

/// Every kind of aggregate, and how to read each of its stores for these ids.
const KINDS: &[(AggregateKind, ReadStores)] = &[
    // One line for each.
    (Listing::KIND, |market, ids| Box::pin(listings(market, ids))),
    (Stock::KIND, |market, ids| Box::pin(stocks(market, ids))),
];

impl Marketplace {
    pub(super) async fn contents(&self, kind: AggregateKind, ids: &[Uuid]) -> anyhow::Result<Vec<Contents>> {
        let known = KINDS.iter().find(|(known, _)| *known == kind);
        let (_, read) = known.with_context(|| format!("the agreement check does not know where {kind} is stored"))?;
        read(self, ids).await
    }
}

async fn listings(market: &Marketplace, ids: &[Uuid]) -> anyhow::Result<Vec<Contents>> {
    let mut pages = BTreeMap::new();
    for id in ids {
        pages.extend(market.page(*id).await?.map(|page| (*id, page)));
    }
    Ok(vec![
        Contents::write_side("command.listings", market.listing_rows().await?),
        Contents::projection(listing_search::NAME, market.documents(ids).await?),
        Contents::projection("listing_catalog", market.catalogue().await?),
        Contents::cache(listing_page::NAME, pages),
    ])
}

async fn stocks(market: &Marketplace, ids: &[Uuid]) -> anyhow::Result<Vec<Contents>> {
    let mut pages = BTreeMap::new();
    for id in ids {
        pages.extend(market.cached_stock(*id).await?.map(|page| (*id, page)));
    }
    Ok(vec![
        Contents::write_side("command.stock", market.stock_rows().await?),
        Contents::projection("stock_levels", market.stock_levels().await?),
        Contents { shows: as_clients_see_it, ..Contents::cache(listing_page::NAME, pages) },
    ])
}

fn as_clients_see_it(due: Held) -> anyhow::Result<Held> {
    let Some(state) = due.state else { return Ok(due) };
    let stock: Stock = serde_json::from_value(state)?;
    Ok(Held { state: Some(serde_json::to_value(StockLevel::from(&stock))?), ..due })
}
