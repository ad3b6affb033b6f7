//! Creates a listing, as a draft or at once for sale, with the stock of each of its variants.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{Listing, ListingId, UserId, VariantId};
use service::problem::{Fault, Kind, Refusal};
use sqlx::PgConnection;
use tracing::info;

use super::content::{Content, Opening};
use super::draft::{ListingDraft, refusing_server_owned};
use super::with_stock::open;
use crate::actor::Actor;
use crate::command::{CommandApp, CommandError, CommandOutcome, LostRace};
use crate::idempotency::{self, IdempotencyScope};
use crate::journal;
use crate::transaction;

/// The names under which its duration is measured: without and with an idempotency key.
pub const OPERATION: &str = "create_listing";
pub const OPERATION_ONCE: &str = "create_listing_once";
/// How long a client waits for a new listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A new listing that keeps all rules.
#[derive(Debug, Clone)]
pub struct CreateListing {
    pub content: Content,
    pub opening: Opening,
    pub scope: Option<IdempotencyScope>,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("Validation failed")]
    Invalid(Vec<Fault>),
    #[error("Only an admin may make listings for others")]
    ForAnother,
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Refusal for CreateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::ForAnother => Kind::Forbidden,
            Self::Command(error) => error.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::ForAnother | Self::Command(_) => Vec::new(),
        }
    }
}

impl LostRace for CreateError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Command(error) if error.is_lost_race())
    }
}

impl CreateListing {
    /// Judges what a client sent. `unknown` are the members that no draft has.
    pub fn new(draft: ListingDraft, unknown: Vec<Fault>, scope: Option<IdempotencyScope>) -> Result<Self, CreateError> {
        let (content, opening) = Content::judge_new(draft, refusing_server_owned(unknown)).map_err(CreateError::Invalid)?;
        Ok(Self { content, opening, scope })
    }

    /// The seller of the new listing: the one that the command names, else the user who creates it.
    pub fn seller(&self, actor: &Actor) -> Result<UserId, CreateError> {
        actor.must_be_seller()?;
        match self.opening.seller.or(actor.user()) {
            Some(seller) if actor.may_change(seller) => Ok(seller),
            Some(_) => Err(CreateError::ForAnother),
            None => Err(CreateError::Invalid(vec![Fault::new("/seller_id", "is required")])),
        }
    }
}

/// Creates the listing in a transaction of its own. Without an idempotency key that is one statement, which commits by itself: one
/// round trip.
pub async fn create_listing(
    app: &CommandApp,
    actor: &Actor,
    command: &CreateListing,
) -> Result<CommandOutcome<Listing>, CreateError> {
    let outcome = if command.scope.is_none() {
        let work = async {
            let mut connection = app.database.connection().await.map_err(CommandError::from)?;
            create_listing_in(&mut connection, actor, command, app.clock.now()).await.map_err(CreateError::while_committing)
        };
        app.metrics.queries.time(OPERATION, work).await?
    } else {
        let work = transaction::retried(|| async {
            let mut tx = transaction::begin(app, DEADLINE).await?;
            let outcome = create_listing_in(&mut tx, actor, command, app.clock.now()).await;
            transaction::end(tx, outcome).await
        });
        app.metrics.queries.time(OPERATION_ONCE, work).await?
    };
    if outcome.is_written() {
        app.wake.ring();
        app.metrics.created.inc();
        let (id, seller) = (outcome.answer.id, outcome.answer.seller_id);
        info!(listing.id = %id, seller.id = %seller, "Created listing {id}");
    }
    Ok(outcome)
}

/// Decide and write, in the transaction of the caller.
pub async fn create_listing_in(
    tx: &mut PgConnection,
    actor: &Actor,
    command: &CreateListing,
    now: DateTime<Utc>,
) -> Result<CommandOutcome<Listing>, CreateError> {
    if let Some(first) = idempotency::first_answer(tx, command.scope.as_ref()).await? {
        return Ok(first);
    }
    let seller = command.seller(actor)?;
    let (created, changes) = open(command.content.clone(), &command.opening, ListingId::new(), seller, now, VariantId::new);

    journal::write(tx, &changes, actor, now).await?;
    let outcome = changes.outcome(created.listing);
    idempotency::keep(tx, command.scope.as_ref(), &outcome).await?;
    Ok(outcome)
}

impl CreateError {
    fn while_committing(self) -> Self {
        if let Self::Command(error) = self { Self::Command(error.while_committing()) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use events::{CausedBy, Roles, SystemTask};
    use serde_json::json;

    use super::*;
    use crate::command::Expected;
    use crate::listings::delete_listing::{DeleteListing, delete_listing};
    use crate::listings::tests::{SELLER, draft, user};
    use crate::test_database::TestDatabase;

    #[test]
    fn only_an_admin_makes_listings_for_others() {
        let other = UserId(uuid::Uuid::from_u128(8));
        let (draft, unknown) = draft(&json!({ "title": "t", "price": { "amount": "1" }, "seller_id": other }));
        let command = CreateListing::new(draft, unknown, None).unwrap();
        assert!(matches!(command.seller(&user(SELLER, Roles::SELLER)), Err(CreateError::ForAnother)));
        assert_eq!(command.seller(&user(SELLER, Roles::ADMIN)).unwrap(), other);
        assert_eq!(command.seller(&user(other, Roles::SELLER)).unwrap(), other);
    }

    #[tokio::test]
    async fn an_external_id_is_taken_until_its_listing_is_deleted() {
        let Some(database) = TestDatabase::create().await else { return };
        let seller = user(SELLER, Roles::SELLER);
        let (draft, unknown) = draft(&json!({ "title": "t", "price": { "amount": "1" }, "external_id": "x" }));
        let command = CreateListing::new(draft, unknown, None).unwrap();
        let first = create_listing(&database.app, &seller, &command).await.unwrap().answer;
        let again = create_listing(&database.app, &seller, &command).await;
        assert!(matches!(again, Err(CreateError::Command(CommandError::Taken(_)))), "{again:?}");
        let delete = DeleteListing { listing: first.id, expected: Expected::Any };
        delete_listing(&database.app, &seller, &delete).await.unwrap();
        create_listing(&database.app, &seller, &command).await.unwrap();
        database.drop().await;
    }

    #[test]
    fn the_system_names_the_seller() {
        let system = Actor { who: CausedBy::System(SystemTask::Intake), ..user(SELLER, Roles::NONE) };
        let (draft, unknown) = draft(&json!({ "title": "t", "price": { "amount": "1" } }));
        let mut command = CreateListing::new(draft, unknown, None).unwrap();
        assert!(matches!(command.seller(&system), Err(CreateError::Invalid(_))));
        command.opening.seller = Some(SELLER);
        assert_eq!(command.seller(&system).unwrap(), SELLER);
    }
}
