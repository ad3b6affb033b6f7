//! Replaces what a listing says, with one `PUT` or, after a merge, one `PATCH`.

use std::time::Duration;

use events::{Listing, ListingId};
use service::http::IfMatch;
use service::problem::{Fault, Kind, Refusal};
use tracing::info;

use super::content::Content;
use super::draft::{ListingDraft, passing_over_server_owned};
use super::held::Held;
use super::revise::{NewIds, revise};
use super::rows::{lock_listing, lock_stock_of};
use crate::app::App;
use crate::caller::Caller;
use crate::database;
use crate::journal;
use crate::outcome::Done;
use crate::precondition;
use crate::refusal::{Refused, Repeatable};
use crate::transaction;

/// How long a client waits for a change of a listing.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ReplaceRefused {
    #[error("The listing breaks rules")]
    Invalid(Vec<Fault>),
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Refusal for ReplaceRefused {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Refused(refused) => refused.kind(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Invalid(faults) => faults.clone(),
            Self::Refused(_) => Vec::new(),
        }
    }
}

impl Repeatable for ReplaceRefused {
    fn lost_race(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.lost_race())
    }
}

/// Judges what a client sent. `unknown` are the members that no draft has; what the server sets may be among them.
pub fn judge(draft: ListingDraft, unknown: Vec<Fault>) -> Result<Content, ReplaceRefused> {
    Content::judge(draft, passing_over_server_owned(unknown)).map_err(ReplaceRefused::Invalid)
}

pub async fn replace_listing(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
    content: Content,
) -> Result<Done<Listing>, ReplaceRefused> {
    let touches_variants = content.variants.is_some();
    let replacement = replace_with(app, caller, id, expected, touches_variants, |_| Ok(content.clone()));
    app.metrics.queries.time("replace_listing", replacement).await
}

/// Gives the listing a content that may depend on what it says now.
pub(super) async fn replace_with(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
    touches_variants: bool,
    content: impl Fn(&Listing) -> Result<Content, Vec<Fault>> + Send + Sync,
) -> Result<Done<Listing>, ReplaceRefused> {
    let (done, changed) = transaction::repeated(|| attempt(app, caller, id, expected, touches_variants, &content)).await?;
    if changed {
        app.wake.ring();
        app.metrics.updated.inc();
        info!(listing.id = %id, "Changed listing {id}");
    }
    Ok(done)
}

/// Lock, decide, write: one transaction. Without a change there is nothing to write.
async fn attempt(
    app: &App,
    caller: &Caller,
    id: ListingId,
    expected: Option<&IfMatch>,
    touches_variants: bool,
    content: impl Fn(&Listing) -> Result<Content, Vec<Fault>> + Send + Sync,
) -> Result<(Done<Listing>, bool), ReplaceRefused> {
    let now = app.clock.now();
    precondition::require(expected)?;
    let mut tx = app.database.begin(DEADLINE).await.map_err(Refused::from)?;

    let stock = if touches_variants { lock_stock_of(&mut tx, &[id]).await? } else { Vec::new() };
    let listing = lock_listing(&mut tx, id).await?.ok_or(Refused::NotFound)?;
    caller.must_own(&listing)?;
    precondition::check(expected, listing.version)?;
    let content = content(&listing).map_err(ReplaceRefused::Invalid)?;
    let held = if touches_variants { Held::with_all_stock(listing, stock)? } else { Held { listing, stock } };
    let (held, facts) = revise(&held, content, now, NewIds::random()).map_err(ReplaceRefused::Invalid)?;
    if facts.is_empty() {
        return Ok((Done::already(held.listing), false));
    }

    journal::write(&mut tx, &facts, caller, now).await?;
    database::commit(tx).await.map_err(Refused::from)?;
    Ok((Done::now(held.listing, facts.token()), true))
}
