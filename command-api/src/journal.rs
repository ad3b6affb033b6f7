//! What a command decided, and how it is written: state, journal and outbox in one statement.
//!
//! A row of a state table is always the state of the last event of its aggregate, because nothing else writes these
//! tables. The row lock of an aggregate that exists is taken before; two who make the same version meet in
//! `events_version_key`, and the later one starts again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use events::subject::EVENT_MAX;
use events::{
    AggregateKey, CausedBy, ConsistencyToken, EventId, Headers, Listing, ListingChange, ListingId, Meta, NewEvent, Recorded,
    Stock, StockChange, VariantId,
};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::caller::Caller;
use crate::database::Failure;
use crate::refusal::Refused;

/// Facts in the order in which they came to be. Each holds its aggregate's state and version after it; one that ends its
/// aggregate holds the last state there was, under the version of the end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts(Vec<NewFact>);

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are a few per command, and nearly all that count are listings")]
enum NewFact {
    Listing { change: ListingChange, listing: Listing, ends: bool },
    Stock { change: StockChange, stock: Stock, ends: bool },
}

impl Facts {
    pub fn listing(&mut self, change: ListingChange, listing: Listing) {
        self.0.push(NewFact::Listing { change, listing, ends: false });
    }

    /// The listing is gone: its version goes up for the last time.
    pub fn end_of_listing(&mut self, mut listing: Listing) {
        listing.version += 1;
        self.0.push(NewFact::Listing { change: ListingChange::Deleted {}, listing, ends: true });
    }

    pub fn stock(&mut self, change: StockChange, stock: Stock) {
        self.0.push(NewFact::Stock { change, stock, ends: false });
    }

    /// The variant is gone, and its stock with it.
    pub fn end_of_stock(&mut self, mut stock: Stock) {
        stock.version += 1;
        self.0.push(NewFact::Stock { change: StockChange::Removed {}, stock, ends: true });
    }

    /// Adds what was decided later in the same transaction.
    pub fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the client gets to name these facts by: each aggregate at its last version, the listing first.
    pub fn token(&self) -> ConsistencyToken {
        let mut last: BTreeMap<AggregateKey, u64> = BTreeMap::new();
        last.extend(self.0.iter().map(|fact| (fact.key(), fact.version())));
        ConsistencyToken::of(&last.into_iter().collect::<Vec<_>>())
    }

    /// Refuses what no broker would take, before anything is written (PROTOCOL W5).
    pub fn record(&self, caller: &Caller, now: DateTime<Utc>) -> Result<Vec<Recorded>, Refused> {
        self.0.iter().map(|fact| fact.record(caller, now)).collect()
    }
}

impl NewFact {
    fn key(&self) -> AggregateKey {
        match self {
            Self::Listing { listing, .. } => AggregateKey::listing(listing.id),
            Self::Stock { stock, .. } => AggregateKey::stock(stock.variant_id),
        }
    }

    fn version(&self) -> u64 {
        match self {
            Self::Listing { listing, .. } => listing.version,
            Self::Stock { stock, .. } => stock.version,
        }
    }

    fn record(&self, caller: &Caller, now: DateTime<Utc>) -> Result<Recorded, Refused> {
        let meta = Meta {
            id: EventId::new(),
            key: self.key(),
            version: self.version(),
            time: now.into(),
            caused_by: Some(CausedBy::User(caller.user)),
            correlation_id: caller.correlation_id.clone(),
            trace_parent: caller.trace_parent.clone(),
        };
        let recorded = match self {
            Self::Listing { change, listing, ends } => NewEvent { meta, change, state: (!ends).then_some(listing) }.encode(),
            Self::Stock { change, stock, ends } => NewEvent { meta, change, state: (!ends).then_some(stock) }.encode(),
        };
        let recorded = recorded.map_err(Failure::document)?;
        if recorded.size() > EVENT_MAX { Err(Refused::TooLarge) } else { Ok(recorded) }
    }
}

/// Writes the facts and what they make of the state tables, within a transaction.
pub async fn write(connection: &mut PgConnection, facts: &Facts, caller: &Caller, now: DateTime<Utc>) -> Result<(), Refused> {
    Ok(execute(connection, &facts.record(caller, now)?, facts, now).await?)
}

/// The same as a transaction of its own: one statement, one round trip. If it breaks, nobody knows whether it was done.
pub async fn write_and_commit(
    connection: &mut PgConnection,
    facts: &Facts,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    let recorded = facts.record(caller, now)?;
    Ok(execute(connection, &recorded, facts, now).await.map_err(Failure::while_committing)?)
}

async fn execute(
    connection: &mut PgConnection,
    recorded: &[Recorded],
    facts: &Facts,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let listings = ListingRows::of(facts, now);
    let stocks = StockRows::of(facts, now);
    let journal = JournalRows::of(recorded);
    sqlx::query_file!(
        "src/journal/write_facts.sql",
        &listings.ids,
        &listings.versions,
        &listings.sellers,
        &listings.external_ids as &[Option<&str>],
        &listings.statuses as &[&str],
        &listings.states as &[Json<&Listing>],
        &listings.ends as &[Option<DateTime<Utc>>],
        &stocks.ids,
        &stocks.listings,
        &stocks.sellers,
        &stocks.on_hand,
        &stocks.reserved,
        &stocks.thresholds as &[Option<i64>],
        &stocks.versions,
        &stocks.updated_at,
        &stocks.ends as &[Option<DateTime<Utc>>],
        &journal.aggregates as &[&str],
        &journal.ids,
        &journal.versions,
        &journal.event_ids,
        &journal.types as &[&str],
        &journal.headers as &[Json<&Headers>],
        &journal.bodies as &[&[u8]],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Rows by column, as `unnest` takes them.
#[derive(Default)]
struct ListingRows<'a> {
    ids: Vec<Uuid>,
    versions: Vec<i64>,
    sellers: Vec<Uuid>,
    external_ids: Vec<Option<&'a str>>,
    statuses: Vec<&'a str>,
    states: Vec<Json<&'a Listing>>,
    ends: Vec<Option<DateTime<Utc>>>,
}

impl<'a> ListingRows<'a> {
    fn of(facts: &'a Facts, now: DateTime<Utc>) -> Self {
        let mut last: BTreeMap<ListingId, (&Listing, bool)> = BTreeMap::new();
        for fact in &facts.0 {
            if let NewFact::Listing { listing, ends, .. } = fact {
                last.insert(listing.id, (listing, *ends));
            }
        }
        let mut last: Vec<_> = last.into_values().collect();
        // Two batches with the same external ids wait for each other instead of for ever.
        last.sort_unstable_by_key(|(listing, _)| (listing.seller_id, &listing.external_id, listing.id));
        let mut rows = Self::default();
        for (listing, ends) in last {
            rows.ids.push(listing.id.0);
            rows.versions.push(listing.version.cast_signed());
            rows.sellers.push(listing.seller_id.0);
            rows.external_ids.push(listing.external_id.as_deref());
            rows.statuses.push(listing.status.as_str());
            rows.states.push(Json(listing));
            rows.ends.push(ends.then_some(now));
        }
        rows
    }
}

#[derive(Default)]
struct StockRows {
    ids: Vec<Uuid>,
    listings: Vec<Uuid>,
    sellers: Vec<Uuid>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    thresholds: Vec<Option<i64>>,
    versions: Vec<i64>,
    updated_at: Vec<DateTime<Utc>>,
    ends: Vec<Option<DateTime<Utc>>>,
}

impl StockRows {
    fn of(facts: &Facts, now: DateTime<Utc>) -> Self {
        let mut last: BTreeMap<VariantId, (&Stock, bool)> = BTreeMap::new();
        for fact in &facts.0 {
            if let NewFact::Stock { stock, ends, .. } = fact {
                last.insert(stock.variant_id, (stock, *ends));
            }
        }
        let mut rows = Self::default();
        for (stock, ends) in last.into_values() {
            rows.ids.push(stock.variant_id.0);
            rows.listings.push(stock.listing_id.0);
            rows.sellers.push(stock.seller_id.0);
            rows.on_hand.push(stock.on_hand);
            rows.reserved.push(stock.reserved);
            rows.thresholds.push(stock.low_stock_threshold);
            rows.versions.push(stock.version.cast_signed());
            rows.updated_at.push(stock.updated_at.get());
            rows.ends.push(ends.then_some(now));
        }
        rows
    }
}

#[derive(Default)]
struct JournalRows<'a> {
    aggregates: Vec<&'a str>,
    ids: Vec<Uuid>,
    versions: Vec<i64>,
    event_ids: Vec<Uuid>,
    types: Vec<&'a str>,
    headers: Vec<Json<&'a Headers>>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> JournalRows<'a> {
    fn of(recorded: &'a [Recorded]) -> Self {
        let mut rows = Self::default();
        for event in recorded {
            rows.aggregates.push(event.key.kind.name());
            rows.ids.push(event.key.id);
            rows.versions.push(event.version.cast_signed());
            rows.event_ids.push(event.id.0);
            rows.types.push(event.event_type);
            rows.headers.push(Json(&event.headers));
            rows.bodies.push(&event.body);
        }
        rows
    }
}
