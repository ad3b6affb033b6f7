//! Who sees what. The only place that decides it, for every route.
//!
//! By id: active or sold and not private is for everyone, all else for its seller and admins, and for nobody once deleted.
//! In lists and searches: active and public; a seller who asks for own listings, and an admin who asks for anyone's, see all.

use events::UserId;
use events::listing::{Listing, Status, Visibility};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    Anyone,
    User(UserId),
    Admin,
}

/// What of a listing decides who sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub status: Status,
    pub visibility: Visibility,
    pub seller: UserId,
}

impl From<&Listing> for Standing {
    fn from(listing: &Listing) -> Self {
        Self { status: listing.status, visibility: listing.visibility, seller: listing.seller_id }
    }
}

/// Whom an answer is for, whoever asked: it decides what caches may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Everyone,
    /// This viewer, and perhaps nobody else.
    Viewer,
}

/// Whether `viewer` may see a listing by its id, and who else may. `None`: for this viewer it does not exist.
#[must_use]
pub fn by_id(viewer: Viewer, listing: Standing) -> Option<Audience> {
    let on_show = match listing.status {
        Status::Active | Status::Sold => listing.visibility != Visibility::Private,
        Status::Draft | Status::Paused | Status::Archived => false,
    };
    if on_show {
        return Some(Audience::Everyone);
    }
    let entitled = match viewer {
        Viewer::Anyone => false,
        Viewer::User(user) => user == listing.seller,
        Viewer::Admin => true,
    };
    entitled.then_some(Audience::Viewer)
}

/// Which listings a list or a search may show at all; filters narrow it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Active and public.
    Public,
    /// Active and public, and everything of this seller.
    PublicAndOwn(UserId),
    /// Whatever is not deleted.
    Everything,
}

impl Scope {
    #[must_use]
    pub fn audience(self) -> Audience {
        match self {
            Self::Public => Audience::Everyone,
            Self::PublicAndOwn(_) | Self::Everything => Audience::Viewer,
        }
    }

    /// Whether a list of this scope may hold the listing.
    #[must_use]
    pub fn holds(self, listing: Standing) -> bool {
        let public = listing.status == Status::Active && listing.visibility == Visibility::Public;
        match self {
            Self::Public => public,
            Self::PublicAndOwn(seller) => public || listing.seller == seller,
            Self::Everything => true,
        }
    }
}

/// `GET /listings`: who names sellers may see more of their own.
#[must_use]
pub fn in_list(viewer: Viewer, sellers_asked_for: &[UserId]) -> Scope {
    match viewer {
        Viewer::Admin if !sellers_asked_for.is_empty() => Scope::Everything,
        Viewer::User(user) if sellers_asked_for.contains(&user) => Scope::PublicAndOwn(user),
        Viewer::Anyone | Viewer::User(_) | Viewer::Admin => Scope::Public,
    }
}

/// Search is for buyers: it shows the same to everyone.
pub const IN_SEARCH: Scope = Scope::Public;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OWNER: UserId = UserId(Uuid::from_u128(1));
    const OTHER: UserId = UserId(Uuid::from_u128(2));

    const VIEWERS: [(&str, Viewer); 4] =
        [("anonymous", Viewer::Anyone), ("other", Viewer::User(OTHER)), ("owner", Viewer::User(OWNER)), ("admin", Viewer::Admin)];

    /// Of whom `GET /listings` is asked.
    const ASKED: [(&str, &[UserId]); 2] = [("all", &[]), ("seller", &[OWNER])];

    /// Each line: status, visibility, and who sees it by id, in the list of all, in the seller's list, by search.
    const TABLE: &[(&str, &str, &str, &str, &str, &str)] = &[
        ("draft", "public", "owner admin", "", "owner admin", ""),
        ("draft", "unlisted", "owner admin", "", "owner admin", ""),
        ("draft", "private", "owner admin", "", "owner admin", ""),
        ("active", "public", "anonymous other owner admin", "anonymous other owner admin", "anonymous other owner admin", "all"),
        ("active", "unlisted", "anonymous other owner admin", "", "owner admin", ""),
        ("active", "private", "owner admin", "", "owner admin", ""),
        ("paused", "public", "owner admin", "", "owner admin", ""),
        ("paused", "unlisted", "owner admin", "", "owner admin", ""),
        ("paused", "private", "owner admin", "", "owner admin", ""),
        ("archived", "public", "owner admin", "", "owner admin", ""),
        ("archived", "unlisted", "owner admin", "", "owner admin", ""),
        ("archived", "private", "owner admin", "", "owner admin", ""),
        ("sold", "public", "anonymous other owner admin", "", "owner admin", ""),
        ("sold", "unlisted", "anonymous other owner admin", "", "owner admin", ""),
        ("sold", "private", "owner admin", "", "owner admin", ""),
    ];

    fn who(sees: impl Fn(Viewer) -> bool) -> String {
        let names: Vec<_> = VIEWERS.iter().filter(|(_, viewer)| sees(*viewer)).map(|(name, _)| *name).collect();
        names.join(" ")
    }

    #[test]
    fn everyone_sees_what_the_table_says() {
        for (status, visibility, by_id_expected, all, own, search) in TABLE {
            let listing = Standing {
                status: Status::from_name(status).unwrap(),
                visibility: Visibility::from_name(visibility).unwrap(),
                seller: OWNER,
            };
            let case = format!("{status} {visibility}");
            assert_eq!(who(|viewer| by_id(viewer, listing).is_some()), *by_id_expected, "{case} by id");
            for ((name, sellers), expected) in ASKED.iter().zip([all, own]) {
                assert_eq!(who(|viewer| in_list(viewer, sellers).holds(listing)), *expected, "{case} in the list of {name}");
            }
            assert_eq!(IN_SEARCH.holds(listing), *search == "all", "{case} by search");
        }
        assert_eq!(TABLE.len(), Status::ALL.len() * Visibility::ALL.len(), "a combination is missing");
    }

    #[test]
    fn only_what_everyone_may_see_is_for_shared_caches() {
        for status in Status::ALL {
            for visibility in Visibility::ALL {
                let listing = Standing { status: *status, visibility: *visibility, seller: OWNER };
                let open = by_id(Viewer::Anyone, listing).is_some();
                for viewer in [Viewer::User(OWNER), Viewer::Admin] {
                    let expected = if open { Audience::Everyone } else { Audience::Viewer };
                    assert_eq!(by_id(viewer, listing), Some(expected), "{status} {visibility} {viewer:?}");
                }
            }
        }
    }

    #[test]
    fn naming_others_beside_oneself_opens_only_ones_own() {
        assert_eq!(in_list(Viewer::User(OWNER), &[OTHER, OWNER]), Scope::PublicAndOwn(OWNER));
        assert_eq!(in_list(Viewer::User(OWNER), &[OTHER]), Scope::Public);
        assert_eq!(in_list(Viewer::Admin, &[]), Scope::Public);
    }
}
