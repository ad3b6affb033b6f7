//! Creates many listings, or replaces those that the seller has under the same `external_id`. Every line stands alone: a bad line
//! fails, the others are done.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{ListingId, UserId, VariantId};
use service::problem::{Fault, Kind, Refusal};
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::info;

use super::content::Content;
use super::create_listing::{CreateError, CreateListing};
use super::draft::{ListingDraft, VARIANTS, refusing_server_owned};
use super::revise::{NewIds, revise};
use super::with_stock::{ListingWithStock, open};
use super::words::is_external_id;
use crate::actor::Actor;
use crate::command::{CommandApp, CommandError, LostRace};
use crate::journal::{self, Changes};
use crate::tables::listings::{find_by_external_id, lock_listings};
use crate::tables::stock::lock_stock_of;
use crate::transaction;

/// The name under which the duration of each part is measured.
pub const OPERATION: &str = "create_batch";
/// How long a client waits for a batch.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The part of the deadline that is reserved for reading the request and writing the answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Upper bound of events per transaction. It exceeds what a single line can produce, so a line is never split.
const EVENTS_AT_ONCE: u32 = 10_000;

/// Upper bound of the faults that are reported of one line. A batch may consist of faults only.
pub const FAULTS_OF_A_LINE: usize = 100;

/// A line that is a draft, whatever may be wrong with it.
#[derive(Debug, Clone)]
pub struct BatchLine {
    pub draft: ListingDraft,
    /// Members that no draft has.
    pub unknown: Vec<Fault>,
}

/// What a line did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineOutcome {
    pub created: bool,
    pub id: ListingId,
    pub version: u64,
}

/// Why a line was not done.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("Validation failed")]
    Invalid(Vec<Fault>),
    #[error("Deadline reached before this line; it was not processed, send it again")]
    LeftOut,
    /// The transaction of this line and others failed as a whole.
    #[error("{why}")]
    WithOthers { kind: Kind, why: String },
    #[error(transparent)]
    Create(CreateError),
}

impl From<CreateError> for LineError {
    fn from(error: CreateError) -> Self {
        if let CreateError::Invalid(faults) = error { Self::Invalid(faults) } else { Self::Create(error) }
    }
}

impl Refusal for LineError {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::LeftOut => Kind::Unavailable,
            Self::WithOthers { kind, .. } => *kind,
            Self::Create(error) => error.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::LeftOut | Self::WithOthers { .. } | Self::Create(_) => Vec::new(),
        }
    }
}

/// Why the batch as a whole was not done.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CreateBatchError(#[from] CommandError);

impl Refusal for CreateBatchError {
    fn kind(&self) -> Kind {
        self.0.kind()
    }
}

impl LostRace for CreateBatchError {
    fn is_lost_race(&self) -> bool {
        // Another command has just created a listing with one of these external ids: the next attempt replaces it.
        self.0.is_lost_race() || matches!(self.0, CommandError::Taken(_))
    }
}

type LineOutcomes = Vec<Result<LineOutcome, LineError>>;

/// Applies the lines in transactions of its own, usually one. After the first commit the batch as a whole is not refused any more: lines that
/// cannot be done are refused one by one.
pub async fn create_batch(app: &CommandApp, actor: &Actor, lines: &[BatchLine]) -> Result<LineOutcomes, CreateBatchError> {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(lines.len());
    let (mut changed, mut written) = (0, 0);
    for part in parts(lines) {
        let events: u32 = part.iter().map(events_of).sum();
        if written > 0 && began.elapsed().mul_f64(share(written + events, written)) + ANSWER > DEADLINE {
            outcomes.extend(part.iter().map(|_| Err(LineError::LeftOut)));
            continue;
        }
        let work = transaction::retried(|| attempt(app, actor, part));
        match app.metrics.queries.time(OPERATION, work).await {
            Ok(applied) => {
                app.wake.ring();
                outcomes.extend(applied.lines);
                changed += applied.changed;
            }
            Err(error) if written == 0 => return Err(error),
            Err(CreateBatchError(error)) => {
                let with_others = |_| Err(LineError::WithOthers { kind: error.kind(), why: error.to_string() });
                outcomes.extend(part.iter().map(with_others));
            }
        }
        written += events;
    }

    let created = outcomes.iter().flatten().filter(|line| line.created).count();
    let refused = outcomes.iter().filter(|line| line.is_err()).count();
    app.metrics.created.inc_by(counter(created));
    app.metrics.updated.inc_by(counter(changed));
    info!(created, changed, refused, "Took a batch: {created} listings created, {changed} changed, {refused} lines refused");
    Ok(outcomes)
}

/// Runs one part. If no listing has one of its external ids there is nothing to lock, and the part is one statement, which commits by
/// itself.
async fn attempt(app: &CommandApp, actor: &Actor, lines: &[BatchLine]) -> Result<AppliedPart, CreateBatchError> {
    let mut connection = app.database.batch_connection().await.map_err(CommandError::from)?;
    let known = find_known(&mut connection, actor, lines).await?;
    if known.is_empty() {
        let outcome = create_batch_in(&mut connection, actor, lines, &known, app.clock.now()).await;
        return outcome.map_err(|CreateBatchError(error)| CreateBatchError(error.while_committing()));
    }
    drop(connection);

    let mut tx = app.database.begin_batch(DEADLINE).await.map_err(CommandError::from)?;
    let outcome = create_batch_in(&mut tx, actor, lines, &known, app.clock.now()).await;
    transaction::end(tx, outcome).await
}

/// Lock, decide, write, in the transaction of the caller. `known` are the listings that the lines may replace.
pub async fn create_batch_in(
    tx: &mut PgConnection,
    actor: &Actor,
    lines: &[BatchLine],
    known: &[ListingId],
    now: DateTime<Utc>,
) -> Result<AppliedPart, CreateBatchError> {
    let mut batch = Batch::default();
    if !known.is_empty() {
        let mut stock: HashMap<ListingId, Vec<_>> = HashMap::new();
        for one in lock_stock_of(tx, known).await? {
            stock.entry(one.listing_id).or_default().push(one);
        }
        for listing in lock_listings(tx, known).await? {
            let stock = stock.remove(&listing.id).unwrap_or_default();
            batch.put(ListingWithStock::of_locked(listing, stock)?);
        }
    }
    let lines = batch.apply(actor, lines, now);

    journal::write(tx, &batch.changes, actor, now).await?;
    Ok(AppliedPart { lines, changed: batch.changed })
}

/// What a part did.
pub struct AppliedPart {
    lines: LineOutcomes,
    /// Listings that were replaced by other content.
    changed: usize,
}

/// Splits the lines into transactions. Usually one is enough; a thousand listings of two hundred variants exceed the time of one.
fn parts(lines: &[BatchLine]) -> impl Iterator<Item = &[BatchLine]> {
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

/// Upper bound of the events of a line: the listing's, and one for the stock of each variant.
fn events_of(line: &BatchLine) -> u32 {
    let variants = line.draft.variants.as_ref().map_or(1, |variants| variants.len().clamp(1, VARIANTS));
    1 + u32::try_from(variants).unwrap_or(u32::MAX)
}

fn share(events: u32, of: u32) -> f64 {
    f64::from(events) / f64::from(of)
}

fn counter(lines: usize) -> u64 {
    u64::try_from(lines).unwrap_or(u64::MAX)
}

/// Finds the listings that have one of the lines' external ids.
async fn find_known(connection: &mut PgConnection, actor: &Actor, lines: &[BatchLine]) -> Result<Vec<ListingId>, CommandError> {
    let keys: Vec<_> = lines.iter().filter_map(|line| key_of(line, actor)).collect();
    if keys.is_empty() { Ok(Vec::new()) } else { find_by_external_id(connection, &keys).await }
}

/// A seller and an external id.
type ListingName = (UserId, String);

/// The seller and the external id of a line's listing. The rest of the line is judged later.
fn key_of(line: &BatchLine, actor: &Actor) -> Option<ListingName> {
    let seller = match &line.draft.seller_id {
        Some(seller) => UserId(seller.parse().ok()?),
        None => actor.user()?,
    };
    let name = line.draft.external_id.as_ref().filter(|name| is_external_id(name))?;
    actor.may_change(seller).then(|| (seller, name.clone()))
}

/// The listings of a part by their names, and the changes of them so far: a later line sees what an earlier one did.
#[derive(Default)]
struct Batch {
    listings: HashMap<ListingName, ListingWithStock>,
    changes: Changes,
    changed: usize,
}

impl Batch {
    fn put(&mut self, listing: ListingWithStock) {
        if let Some(name) = listing.listing.external_id.clone() {
            self.listings.insert((listing.listing.seller_id, name), listing);
        }
    }

    fn apply(&mut self, actor: &Actor, lines: &[BatchLine], now: DateTime<Utc>) -> LineOutcomes {
        lines.iter().map(|line| self.apply_line(actor, line, now).map_err(shortened)).collect()
    }

    fn apply_line(&mut self, actor: &Actor, line: &BatchLine, now: DateTime<Utc>) -> Result<LineOutcome, LineError> {
        let known = key_of(line, actor).and_then(|key| self.listings.get(&key));
        let (listing, changes, created) = match known {
            Some(before) => replace(before, line.clone(), now).map_err(LineError::Invalid)?,
            None => create(actor, line.clone(), now)?,
        };
        self.changed += usize::from(!created && !changes.is_empty());
        self.changes.append(changes);
        let outcome = LineOutcome { created, id: listing.listing.id, version: listing.listing.version };
        self.put(listing);
        Ok(outcome)
    }
}

fn shortened(mut error: LineError) -> LineError {
    if let LineError::Invalid(faults) = &mut error {
        faults.truncate(FAULTS_OF_A_LINE);
        faults.shrink_to_fit();
    }
    error
}

fn create(actor: &Actor, line: BatchLine, now: DateTime<Utc>) -> Result<(ListingWithStock, Changes, bool), CreateError> {
    let command = CreateListing::new(line.draft, line.unknown, None)?;
    let seller = command.seller(actor)?;
    let (created, changes) = open(command.content, &command.opening, ListingId::new(), seller, now, VariantId::new);
    Ok((created, changes, true))
}

/// Members that count only when a listing is created are ignored.
fn replace(
    before: &ListingWithStock,
    line: BatchLine,
    now: DateTime<Utc>,
) -> Result<(ListingWithStock, Changes, bool), Vec<Fault>> {
    let draft = ListingDraft { status: None, stock: None, seller_id: None, ..line.draft };
    let content = Content::judge(draft, refusing_server_owned(line.unknown))?;
    let (after, changes) = revise(before, content, now, NewIds::random())?;
    Ok((after, changes, false))
}

#[cfg(test)]
mod tests {
    use events::Roles;
    use serde_json::{Value, json};
    use service::problem::FAULTS_LIMIT;

    use super::*;
    use crate::listings::tests::{SELLER, a_listing, draft, now, user};

    fn run(batch: &mut Batch, lines: &[Value]) -> Vec<(u16, u64)> {
        let lines: Vec<BatchLine> = lines
            .iter()
            .map(|line| {
                let (draft, unknown) = draft(line);
                BatchLine { draft, unknown }
            })
            .collect();
        let applied = batch.apply(&user(SELLER, Roles::SELLER), &lines, now());
        let outcomes = applied.into_iter().map(|outcome| match outcome {
            Ok(done) => (if done.created { 201 } else { 200 }, done.version),
            Err(refused) => (refused.kind().http_status().as_u16(), 0),
        });
        outcomes.collect()
    }

    fn line(name: &str, title: &str) -> Value {
        json!({ "title": title, "price": { "amount": "1" }, "external_id": name, "stock": 2 })
    }

    #[test]
    fn a_bad_line_fails_alone() {
        let foreign = json!({ "title": "t", "price": { "amount": "1" }, "seller_id": uuid::Uuid::from_u128(8) });
        let outcomes = run(&mut Batch::default(), &[line("a", "A"), line("b", ""), foreign, line("c", "C")]);
        assert_eq!(outcomes, [(201, 1), (422, 0), (403, 0), (201, 1)]);
    }

    #[test]
    fn of_a_line_of_faults_some_are_told() {
        // Five faults each: letters that are none in all three, and two are too long.
        let attribute = json!({ "name": "\u{1}".repeat(101), "value": "\u{1}", "unit": "\u{1}".repeat(21) });
        let (draft, unknown) = draft(&json!({ "attributes": vec![attribute; 1_000] }));
        let (line, seller) = (BatchLine { draft, unknown }, user(SELLER, Roles::SELLER));
        let faults = |outcome: Option<Result<LineOutcome, LineError>>| match outcome {
            Some(Err(LineError::Invalid(faults))) => faults.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(faults(Some(Batch::default().apply_line(&seller, &line, now()))), FAULTS_LIMIT + 1);
        assert_eq!(faults(Batch::default().apply(&seller, &[line], now()).pop()), FAULTS_OF_A_LINE);
    }

    #[test]
    fn a_transaction_writes_no_more_than_it_has_time_for() {
        let of = |variants: usize| {
            let (draft, unknown) =
                draft(&json!({ "title": "t", "price": { "amount": "1" }, "variants": vec![json!({}); variants] }));
            BatchLine { draft, unknown }
        };
        let lengths = |lines: &[BatchLine]| parts(lines).map(<[BatchLine]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&vec![of(1); 1000]), [1000]);
        assert_eq!(lengths(&vec![of(199); 120]), [50, 50, 20]);
        assert_eq!(lengths(&[of(100_000), of(1)]), [2], "the rules refuse it, and it makes no events");
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn a_later_line_sees_what_an_earlier_one_did() {
        let mut batch = Batch::default();
        let outcomes = run(&mut batch, &[line("a", "A"), line("a", "A"), line("a", "B")]);
        assert_eq!(outcomes, [(201, 1), (200, 1), (200, 2)]);
        assert_eq!(batch.changed, 1);
    }

    #[test]
    fn a_replacing_line_passes_over_status_and_stock() {
        let mut batch = Batch::default();
        batch.put(a_listing(&line("a", "A")));
        let mut again = line("a", "A");
        again["status"] = json!("draft");
        again["stock"] = json!(99);
        assert_eq!(run(&mut batch, &[again]), [(200, 1)]);
        assert!(batch.changes.is_empty());
    }

    #[test]
    fn what_the_server_sets_is_refused_in_either_case() {
        let mut batch = Batch::default();
        batch.put(a_listing(&line("a", "A")));
        for name in ["a", "new"] {
            let mut read = line(name, "A");
            read["version"] = json!(1);
            assert_eq!(run(&mut batch, &[read]), [(422, 0)], "{name}");
        }
    }
}
