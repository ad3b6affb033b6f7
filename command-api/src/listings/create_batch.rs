//! Creates many listings, or replaces those that the seller has under the same `external_id`. Every line stands alone: a bad
//! one fails, the others are done.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{ListingId, UserId, VariantId};
use service::problem::{Fault, Kind, Refusal};
use tokio::time::Instant;
use tracing::info;

use super::content::Content;
use super::create_listing::{CreateListing, CreateRefused, open};
use super::draft::{ListingDraft, refusing_server_owned};
use super::held::Held;
use super::revise::{NewIds, revise};
use super::rows::{find_by_external_id, lock_listings, lock_stock_of};
use super::rules::{VARIANTS, is_external_id};
use crate::app::App;
use crate::caller::Caller;
use crate::database;
use crate::journal::{self, Facts};
use crate::refusal::{Refused, Repeatable};
use crate::transaction;

/// How long a client waits for a batch.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Of it, what reading the request and writing the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// One transaction writes no more than this; more than one line can have.
const EVENTS_AT_ONCE: u32 = 10_000;

/// A batch may be nothing but faults: of each line no more are told.
pub const FAULTS_OF_A_LINE: usize = 100;

/// A line that is a draft, whatever may be wrong with it.
#[derive(Debug, Clone)]
pub struct Line {
    pub draft: ListingDraft,
    /// Members that no draft has.
    pub unknown: Vec<Fault>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineDone {
    pub created: bool,
    pub id: ListingId,
    pub version: u64,
}

/// The batch as a whole was not done.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BatchRefused(#[from] Refused);

impl Refusal for BatchRefused {
    fn kind(&self) -> Kind {
        self.0.kind()
    }
}

impl Repeatable for BatchRefused {
    fn lost_race(&self) -> bool {
        // Somebody made a listing with one of these external ids just now: the next attempt replaces it.
        self.0.lost_race() || matches!(self.0, Refused::ExternalIdTaken)
    }
}

type Outcomes = Vec<Result<LineDone, CreateRefused>>;

/// Does the lines part by part. Once something is done there is no refusing the batch as a whole: what can not be done any more is
/// refused line by line.
pub async fn create_batch(app: &App, caller: &Caller, lines: &[Line]) -> Result<Outcomes, BatchRefused> {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(lines.len());
    let (mut changed, mut written) = (0, 0);
    for part in parts(lines) {
        let events: u32 = part.iter().map(events_of).sum();
        if written > 0 && began.elapsed().mul_f64(share(written + events, written)) + ANSWER > DEADLINE {
            outcomes.extend(part.iter().map(|_| Err(CreateRefused::LeftOut)));
            continue;
        }
        let attempts = transaction::repeated(|| attempt(app, caller, part));
        match app.metrics.queries.time("create_batch", attempts).await {
            Ok((done, changed_here)) => {
                app.wake.ring();
                outcomes.extend(done);
                changed += changed_here;
            }
            Err(refused) if written == 0 => return Err(refused),
            Err(BatchRefused(refused)) => {
                let together = |_| Err(CreateRefused::WithOthers { kind: refused.kind(), why: refused.to_string() });
                outcomes.extend(part.iter().map(together));
            }
        }
        written += events;
    }

    let created = outcomes.iter().flatten().filter(|line| line.created).count();
    let refused = outcomes.iter().filter(|line| line.is_err()).count();
    app.metrics.created.inc_by(count(created));
    app.metrics.updated.inc_by(count(changed));
    info!(created, changed, refused, "Took a batch: {created} listings created, {changed} changed, {refused} lines refused");
    Ok(outcomes)
}

/// Lines that are done in one transaction. Usually that is all of them; but a thousand listings of two hundred variants are more than fits
/// into the time there is.
fn parts(lines: &[Line]) -> impl Iterator<Item = &[Line]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut events = 0;
        let fits = rest.iter().take_while(|line| {
            events += events_of(line);
            events <= EVENTS_AT_ONCE
        });
        let (part, later) = rest.split_at(fits.count());
        rest = later;
        (!part.is_empty()).then_some(part)
    })
}

/// At most so many events come of a line: the listing's, and one for the stock of each variant.
fn events_of(line: &Line) -> u32 {
    let variants = line.draft.variants.as_ref().map_or(1, |variants| variants.len().clamp(1, VARIANTS));
    1 + u32::try_from(variants).unwrap_or(u32::MAX)
}

fn share(events: u32, of: u32) -> f64 {
    f64::from(events) / f64::from(of)
}

fn count(lines: usize) -> u64 {
    u64::try_from(lines).unwrap_or(u64::MAX)
}

/// Lock, decide, write. If nothing is there to be locked, one statement does it.
async fn attempt(app: &App, caller: &Caller, lines: &[Line]) -> Result<(Outcomes, usize), BatchRefused> {
    let now = app.clock.now();
    let keys: Vec<_> = lines.iter().filter_map(|line| key_of(line, caller)).collect();
    let mut connection = app.database.batch_connection().await.map_err(Refused::from)?;
    let known = if keys.is_empty() { Vec::new() } else { find_by_external_id(&mut connection, &keys).await? };
    if known.is_empty() {
        let mut shelf = Shelf::default();
        let outcomes = shelf.take(caller, lines, now);
        if !shelf.facts.is_empty() {
            journal::write_and_commit(&mut connection, &shelf.facts, caller, now).await?;
        }
        return Ok((outcomes, shelf.changed));
    }
    drop(connection);

    let mut tx = app.database.begin_batch(DEADLINE).await.map_err(Refused::from)?;
    let mut stock: HashMap<ListingId, Vec<_>> = HashMap::new();
    for one in lock_stock_of(&mut tx, &known).await? {
        stock.entry(one.listing_id).or_default().push(one);
    }
    let mut shelf = Shelf::default();
    for listing in lock_listings(&mut tx, &known).await? {
        let stock = stock.remove(&listing.id).unwrap_or_default();
        shelf.put(Held::with_all_stock(listing, stock)?);
    }
    let outcomes = shelf.take(caller, lines, now);
    if !shelf.facts.is_empty() {
        journal::write(&mut tx, &shelf.facts, caller, now).await?;
        database::commit(tx).await.map_err(Refused::from)?;
    }
    Ok((outcomes, shelf.changed))
}

type Key = (UserId, String);

/// What the line's listing is known by, if it has a name at all. The rest of the line is judged later.
fn key_of(line: &Line, caller: &Caller) -> Option<Key> {
    let seller = match &line.draft.seller_id {
        Some(seller) => UserId(seller.parse().ok()?),
        None => caller.user,
    };
    let own = seller == caller.user || caller.is_admin();
    let name = line.draft.external_id.as_ref().filter(|name| is_external_id(name))?;
    own.then(|| (seller, name.clone()))
}

/// Listings by their names, and what happened to them so far: a later line of the batch sees what an earlier one did.
#[derive(Default)]
struct Shelf {
    listings: HashMap<Key, Held>,
    facts: Facts,
    changed: usize,
}

impl Shelf {
    fn put(&mut self, held: Held) {
        if let Some(name) = held.listing.external_id.clone() {
            self.listings.insert((held.listing.seller_id, name), held);
        }
    }

    fn take(&mut self, caller: &Caller, lines: &[Line], now: DateTime<Utc>) -> Outcomes {
        lines.iter().map(|line| self.take_line(caller, line, now).map_err(shortened)).collect()
    }

    fn take_line(&mut self, caller: &Caller, line: &Line, now: DateTime<Utc>) -> Result<LineDone, CreateRefused> {
        let known = key_of(line, caller).and_then(|key| self.listings.get(&key));
        let (held, facts, created) = match known {
            Some(held) => replace(held, line.clone(), now).map_err(CreateRefused::Invalid)?,
            None => create(caller, line.clone(), now)?,
        };
        self.changed += usize::from(!created && !facts.is_empty());
        self.facts.append(facts);
        let done = LineDone { created, id: held.listing.id, version: held.listing.version };
        self.put(held);
        Ok(done)
    }
}

fn shortened(mut refused: CreateRefused) -> CreateRefused {
    if let CreateRefused::Invalid(faults) = &mut refused {
        faults.truncate(FAULTS_OF_A_LINE);
        faults.shrink_to_fit();
    }
    refused
}

fn create(caller: &Caller, line: Line, now: DateTime<Utc>) -> Result<(Held, Facts, bool), CreateRefused> {
    let command = CreateListing::new(line.draft, line.unknown)?;
    let seller = command.seller(caller)?;
    let (held, facts) = open(command, ListingId::new(), seller, now, VariantId::new);
    Ok((held, facts, true))
}

/// What is said only when a listing is made is passed over.
fn replace(held: &Held, line: Line, now: DateTime<Utc>) -> Result<(Held, Facts, bool), Vec<Fault>> {
    let draft = ListingDraft { status: None, stock: None, seller_id: None, ..line.draft };
    let content = Content::judge(draft, refusing_server_owned(line.unknown))?;
    let (held, facts) = revise(held, content, now, NewIds::random())?;
    Ok((held, facts, false))
}

#[cfg(test)]
mod tests {
    use events::Roles;
    use serde_json::{Value, json};
    use service::problem::FAULTS_LIMIT;

    use super::*;
    use crate::listings::tests::{SELLER, a_listing, caller, draft, now};

    fn take(shelf: &mut Shelf, lines: &[Value]) -> Vec<(u16, u64)> {
        let lines: Vec<Line> = lines
            .iter()
            .map(|line| {
                let (draft, unknown) = draft(line);
                Line { draft, unknown }
            })
            .collect();
        let outcomes = shelf.take(&caller(SELLER, Roles::SELLER), &lines, now());
        let told = outcomes.into_iter().map(|outcome| match outcome {
            Ok(done) => (if done.created { 201 } else { 200 }, done.version),
            Err(refused) => (refused.kind().http_status().as_u16(), 0),
        });
        told.collect()
    }

    fn line(name: &str, title: &str) -> Value {
        json!({ "title": title, "price": { "amount": "1" }, "external_id": name, "stock": 2 })
    }

    #[test]
    fn a_bad_line_fails_alone() {
        let foreign = json!({ "title": "t", "price": { "amount": "1" }, "seller_id": uuid::Uuid::from_u128(8) });
        let told = take(&mut Shelf::default(), &[line("a", "A"), line("b", ""), foreign, line("c", "C")]);
        assert_eq!(told, [(201, 1), (422, 0), (403, 0), (201, 1)]);
    }

    #[test]
    fn of_a_line_of_faults_some_are_told() {
        // Five faults each: letters that are none in all three, and two are too long.
        let attribute = json!({ "name": "\u{1}".repeat(101), "value": "\u{1}", "unit": "\u{1}".repeat(21) });
        let (draft, unknown) = draft(&json!({ "attributes": vec![attribute; 1_000] }));
        let (line, seller) = (Line { draft, unknown }, caller(SELLER, Roles::SELLER));
        let faults = |outcome: Option<Result<LineDone, CreateRefused>>| match outcome {
            Some(Err(CreateRefused::Invalid(faults))) => faults.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(faults(Some(Shelf::default().take_line(&seller, &line, now()))), FAULTS_LIMIT + 1);
        assert_eq!(faults(Shelf::default().take(&seller, &[line], now()).pop()), FAULTS_OF_A_LINE);
    }

    #[test]
    fn a_transaction_writes_no_more_than_it_has_time_for() {
        let of = |variants: usize| {
            let (draft, unknown) =
                draft(&json!({ "title": "t", "price": { "amount": "1" }, "variants": vec![json!({}); variants] }));
            Line { draft, unknown }
        };
        let lengths = |lines: &[Line]| parts(lines).map(<[Line]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&vec![of(1); 1000]), [1000]);
        assert_eq!(lengths(&vec![of(199); 120]), [50, 50, 20]);
        assert_eq!(lengths(&[of(100_000), of(1)]), [2], "the rules refuse it, and it makes no events");
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn a_later_line_sees_what_an_earlier_one_did() {
        let mut shelf = Shelf::default();
        let told = take(&mut shelf, &[line("a", "A"), line("a", "A"), line("a", "B")]);
        assert_eq!(told, [(201, 1), (200, 1), (200, 2)]);
        assert_eq!(shelf.changed, 1);
    }

    #[test]
    fn a_replacing_line_passes_over_status_and_stock() {
        let mut shelf = Shelf::default();
        shelf.put(a_listing(&line("a", "A")));
        let mut again = line("a", "A");
        again["status"] = json!("draft");
        again["stock"] = json!(99);
        assert_eq!(take(&mut shelf, &[again]), [(200, 1)]);
        assert!(shelf.facts.is_empty());
    }

    #[test]
    fn what_the_server_sets_is_refused_in_either_case() {
        let mut shelf = Shelf::default();
        shelf.put(a_listing(&line("a", "A")));
        for name in ["a", "new"] {
            let mut read = line(name, "A");
            read["version"] = json!(1);
            assert_eq!(take(&mut shelf, &[read]), [(422, 0)], "{name}");
        }
    }
}
