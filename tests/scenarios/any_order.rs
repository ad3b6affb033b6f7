//! The projections end in the same state for any order, duplication and late plan of the same events, because each event
//! carries the whole state and its version, and a projection applies only newer versions.

use std::collections::BTreeMap;

use acceptance::stores::Held;
use acceptance::{Marketplace, Name};
use anyhow::ensure;
use events::listing::{Condition, Status, Visibility};
use events::{
    Aggregate, AggregateKey, Currency, EventId, Listing, ListingChange, Meta, Money, NewEvent, Recorded, Stock, StockChange,
    Timestamp, UserId,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use uuid::Uuid;

/// Number of generated cases. Each runs on real stores; a failing case is shrunk by running smaller ones.
const CASES: u32 = 24;
/// Fixed seed, so that every run generates the same cases. `PROPTEST_RNG_SEED=7` sets another.
const SEED: u64 = 20_261_121;
/// Time until the events that a killed projector did not acknowledge are redelivered; the default is 30 s.
const ACK_WAIT: &str = "1s";

/// A history of a listing and its stock, and how its events are delivered to the projections.
#[derive(Debug, Clone)]
struct DeliveryPlan {
    listing_versions: u64,
    listing_deleted: bool,
    stock_versions: u64,
    stock_removed: bool,
    /// Indices into the history, in plan order: each event at least once, some more often.
    order: Vec<usize>,
    /// Number of events at the end of `order` that are published only after the others have been applied.
    late: usize,
    /// One projector is killed while it holds unacknowledged events.
    dies: bool,
}

fn delivery_plans() -> impl Strategy<Value = DeliveryPlan> {
    let shape = (1..=6_u64, any::<bool>(), 1..=4_u64, any::<bool>());
    shape.prop_flat_map(|(listing_versions, listing_deleted, stock_versions, stock_removed)| {
        let events = usize::try_from(listing_versions + stock_versions).unwrap();
        let twice = prop::collection::vec(0..events, 0..=events);
        let order = twice.prop_flat_map(move |twice| Just((0..events).chain(twice).collect::<Vec<_>>()).prop_shuffle());
        (order, 0..=3_usize, prop::bool::weighted(0.2)).prop_map(move |(order, late, dies)| DeliveryPlan {
            listing_versions,
            listing_deleted,
            stock_versions,
            stock_removed,
            order,
            late,
            dies,
        })
    })
}

fn at(version: u64) -> Timestamp {
    format!("2026-11-21T09:30:{version:02}Z").parse().unwrap()
}

fn event<A: Aggregate>(key: AggregateKey, version: u64, change: &A::Change, state: Option<&A>) -> Recorded {
    let meta =
        Meta { id: EventId::new(), key, version, time: at(version), caused_by: None, correlation_id: None, trace_parent: None };
    NewEvent { meta, change, state }.encode().unwrap()
}

/// Returns all events of a listing and of the stock of its variant, from the first version to the last.
fn history(plan: &DeliveryPlan, listing_id: Uuid, variant_id: Uuid, seller_id: UserId) -> Vec<Recorded> {
    let listing = |version: u64| {
        let state = Listing {
            id: listing_id.into(),
            version,
            status: if version % 3 == 2 { Status::Paused } else { Status::Active },
            visibility: Visibility::Public,
            seller_id,
            title: format!("Bicycle in its version {version}"),
            description: String::new(),
            category: Some("sport/cycling".to_owned()),
            price: Money::parse(&format!("{version}.50"), Currency::DEFAULT).unwrap(),
            condition: Condition::Used,
            brand: None,
            language: None,
            attributes: Vec::new(),
            tags: Vec::new(),
            location: None,
            images: Vec::new(),
            variants: Vec::new(),
            available: version.is_multiple_of(2),
            external_id: None,
            created_at: at(0),
            updated_at: at(version),
            published_at: Some(at(0)),
        };
        let deleted = plan.listing_deleted && version == plan.listing_versions;
        let change = match (version, deleted) {
            (_, true) => ListingChange::Deleted {},
            (1, false) => ListingChange::Created {},
            _ => ListingChange::Updated { fields: vec!["title".to_owned()] },
        };
        event(AggregateKey::listing(listing_id), version, &change, (!deleted).then_some(&state))
    };
    let stock = |version: u64| {
        let on_hand = i64::try_from(version).unwrap() * 10;
        let state = Stock {
            variant_id: variant_id.into(),
            listing_id: listing_id.into(),
            seller_id,
            on_hand,
            reserved: 0,
            low_stock_threshold: None,
            version,
            updated_at: at(version),
        };
        let removed = plan.stock_removed && version == plan.stock_versions;
        let change = match (version, removed) {
            (_, true) => StockChange::Removed {},
            (1, false) => StockChange::Opened { on_hand },
            _ => StockChange::Set { on_hand: Some(on_hand), low_stock_threshold: None, reason: None },
        };
        event(AggregateKey::stock(variant_id), version, &change, (!removed).then_some(&state))
    };
    (1..=plan.listing_versions).map(listing).chain((1..=plan.stock_versions).map(stock)).collect()
}

/// Publishes the events as planned, and checks what each projection stores at the end.
async fn deliver_and_check(market: &Marketplace, plan: &DeliveryPlan) -> anyhow::Result<()> {
    let (listing, variant) = (Uuid::now_v7(), Uuid::now_v7());
    let history = history(plan, listing, variant, UserId::new());
    let (first, late) = plan.order.split_at(plan.order.len().saturating_sub(plan.late));
    for (nth, &index) in first.iter().enumerate() {
        market.publish_event(&history[index]).await?;
        if plan.dies && nth == first.len() / 2 {
            let projector = market.program(Name::Projector, 1)?;
            projector.kill()?;
            projector.launch().await?;
        }
    }
    market.settle().await?;
    for &index in late {
        market.publish_event(&history[index]).await?;
    }
    market.settle().await?;

    let body: serde_json::Value = serde_json::from_slice(&history[usize::try_from(plan.listing_versions - 1)?].body)?;
    let expected = Held { version: plan.listing_versions, state: Some(body["state"].clone()).filter(|state| !state.is_null()) };
    let held: BTreeMap<&str, Option<Held>> = [
        ("listing_search", market.documents(&[listing]).await?.remove(&listing)),
        ("listing_catalog", market.catalogue().await?.remove(&listing)),
        ("listing_page", market.page(listing).await?),
    ]
    .into();
    for (projection, held) in held {
        ensure!(held.as_ref() == Some(&expected), "{projection} stores {held:?} instead of {expected:?}");
    }
    let on_hand = (!plan.stock_removed).then_some(plan.stock_versions * 10);
    let held =
        [("stock_levels", market.stock_levels().await?.remove(&variant)), ("listing_page", market.cached_stock(variant).await?)];
    for (projection, held) in held {
        let seen = held.as_ref().map(|held| (held.version, held.state.as_ref().and_then(|state| state["on_hand"].as_u64())));
        ensure!(seen == Some((plan.stock_versions, on_hand)), "{projection} stores {held:?} instead of {on_hand:?}");
    }
    Ok(())
}

#[test]
fn any_permutation_duplication_and_redelivery_of_a_history_ends_in_the_same_stores() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let market = Marketplace::builder().with(Name::Projector, 2).setting(Name::Projector, "ACK_WAIT", ACK_WAIT);
    let market = runtime.block_on(market.start())?;
    let mut config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    println!("The seed is {}", config.rng_seed);
    let outcome = TestRunner::new(config).run(&delivery_plans(), |plan| {
        runtime.block_on(deliver_and_check(&market, &plan)).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    outcome.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    runtime.block_on(market.stop())
}
