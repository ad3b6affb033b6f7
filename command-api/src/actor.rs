//! Who changes something: a user with roles, or a task of the system.

use events::{CausedBy, Listing, Roles, UserId};

use crate::command::CommandError;

/// The roles that may write listings and their stock.
pub const SELLERS: Roles = Roles::SELLER.or(Roles::ADMIN);

/// Who a command is done for. Everything but the roles is written to the headers of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub who: CausedBy,
    /// Of a user. A task of the system has none and may do everything.
    pub roles: Roles,
    /// The id of the request that caused the command: visible ASCII.
    pub correlation_id: Option<String>,
    /// W3C trace context of that request.
    pub trace_parent: Option<String>,
}

impl Actor {
    /// The user, unless a task of the system acts.
    pub fn user(&self) -> Option<UserId> {
        match self.who {
            CausedBy::User(user) => Some(user),
            CausedBy::System(_) => None,
        }
    }

    /// Refuses a user without a role that may write listings and stock. A transport calls this before it reads a body; the
    /// commands check it again, so that the rule does not depend on the transport.
    pub fn must_be_seller(&self) -> Result<(), CommandError> {
        if self.user().is_none() || self.roles.has_any(SELLERS) { Ok(()) } else { Err(CommandError::RoleMissing(SELLERS)) }
    }

    /// Whether the actor may change what belongs to this seller: sellers their own things; admins and the system everything.
    pub fn may_change(&self, seller: UserId) -> bool {
        let owns = || self.user() == Some(seller) && self.must_be_seller().is_ok();
        self.user().is_none() || self.roles.has_any(Roles::ADMIN) || owns()
    }

    /// Refuses an actor who may not change the listing. The refusal shows that the listing exists only if it is shown to everyone.
    pub fn must_be_able_to_change(&self, listing: &Listing) -> Result<(), CommandError> {
        self.must_be_seller()?;
        if self.may_change(listing.seller_id) {
            return Ok(());
        }
        Err(if listing.is_shown_to_everyone() { CommandError::NotYours } else { CommandError::NotFound })
    }
}

#[cfg(test)]
mod tests {
    use events::SystemTask;
    use events::listing::{Status, Visibility};
    use serde_json::json;

    use super::*;
    use crate::listings::tests::{SELLER, a_listing, user};

    #[test]
    fn sellers_change_what_is_theirs_and_admins_and_the_system_everything() {
        let other = UserId(uuid::Uuid::from_u128(8));
        let system = Actor { who: CausedBy::System(SystemTask::Expiry), ..user(SELLER, Roles::NONE) };
        for (actor, may) in [
            (user(SELLER, Roles::SELLER), true),
            (user(other, Roles::SELLER), false),
            (user(other, Roles::SERVICE), false),
            (user(SELLER, Roles::USER), false),
            (user(other, Roles::ADMIN), true),
            (system, true),
        ] {
            assert_eq!(actor.may_change(SELLER), may, "{actor:?}");
        }
    }

    #[test]
    fn an_owner_without_the_role_is_refused_for_the_role() {
        let listing = a_listing(&json!({ "title": "t", "price": { "amount": "1" } })).listing;
        let refused = user(SELLER, Roles::USER).must_be_able_to_change(&listing).unwrap_err();
        assert!(matches!(refused, CommandError::RoleMissing(_)));
        assert_eq!(refused.to_string(), "This needs one of the roles seller, admin");
    }

    #[test]
    fn a_refusal_shows_that_a_listing_exists_only_if_anyone_can_see_it() {
        let stranger = user(UserId(uuid::Uuid::from_u128(8)), Roles::SELLER);
        let refused = |status, visibility| {
            let listing =
                Listing { status, visibility, ..a_listing(&json!({ "title": "t", "price": { "amount": "1" } })).listing };
            stranger.must_be_able_to_change(&listing).unwrap_err()
        };
        assert!(matches!(refused(Status::Active, Visibility::Unlisted), CommandError::NotYours));
        assert!(matches!(refused(Status::Sold, Visibility::Public), CommandError::NotYours));
        assert!(matches!(refused(Status::Active, Visibility::Private), CommandError::NotFound));
        assert!(matches!(refused(Status::Paused, Visibility::Public), CommandError::NotFound));
    }
}
