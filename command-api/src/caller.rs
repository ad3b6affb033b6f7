//! Who asks for a change, and in which request.

use events::listing::{Listing, Status, Visibility};
use events::{Roles, UserId};

use crate::refusal::Refused;

/// Those who may write listings and their stock.
pub const SELLERS: Roles = Roles::SELLER.or(Roles::ADMIN);

/// Whoever a command is done for. Everything but the roles ends up in its events' headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    pub roles: Roles,
    /// The id of the request: visible ASCII.
    pub correlation_id: Option<String>,
    /// W3C trace context of the request.
    pub trace_parent: Option<String>,
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        self.roles.has_any(Roles::ADMIN)
    }

    /// Sellers change what is theirs, an admin everything. Whether something of somebody else's exists is told only if
    /// anyone could see it.
    pub fn must_own(&self, listing: &Listing) -> Result<(), Refused> {
        if self.is_admin() || self.user == listing.seller_id {
            return Ok(());
        }
        let shown = matches!(listing.status, Status::Active | Status::Sold) && listing.visibility != Visibility::Private;
        Err(if shown { Refused::NotYours } else { Refused::NotFound })
    }
}
