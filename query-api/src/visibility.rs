//! Decides who may see which listings, for every query. Nothing else does.
//!
//! By id: an active or sold listing that is not private is shown to everyone, any other to its seller and admins, and a deleted one to
//! nobody. In lists and searches: active and public listings; sellers who filter by themselves, and admins who filter by any seller,
//! see all listings of that seller.

use events::UserId;
use events::listing::{Status, Visibility};
use views::listing_page::ListingContent;

/// Who sent the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    Anyone,
    User(UserId),
    Admin,
}

/// The fields of a listing that decide who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListingAccess {
    pub status: Status,
    pub visibility: Visibility,
    pub seller: UserId,
}

impl From<&ListingContent> for ListingAccess {
    fn from(listing: &ListingContent) -> Self {
        Self { status: listing.status, visibility: listing.visibility, seller: listing.seller_id }
    }
}

/// Who may see an answer: decides which caches may store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Everyone,
    /// Only this viewer, as far as is known.
    Viewer,
}

/// The audience of a listing that `viewer` requests by its id. `None`: for this viewer it does not exist.
pub fn by_id(viewer: Viewer, listing: ListingAccess) -> Option<Audience> {
    if listing.visibility.shows_to_everyone(listing.status) {
        return Some(Audience::Everyone);
    }
    let entitled = match viewer {
        Viewer::Anyone => false,
        Viewer::User(user) => user == listing.seller,
        Viewer::Admin => true,
    };
    entitled.then_some(Audience::Viewer)
}

/// Which listings a list or a search may show. Filters restrict it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Active and public.
    Public,
    /// Active and public, and everything of this seller.
    PublicAndOwn(UserId),
    /// All that are not deleted.
    Everything,
}

impl Scope {
    pub fn audience(self) -> Audience {
        match self {
            Self::Public => Audience::Everyone,
            Self::PublicAndOwn(_) | Self::Everything => Audience::Viewer,
        }
    }
}

/// The scope of a list that is filtered by these sellers.
pub fn in_list(viewer: Viewer, sellers: &[UserId]) -> Scope {
    match viewer {
        Viewer::Admin if !sellers.is_empty() => Scope::Everything,
        Viewer::User(user) if sellers.contains(&user) => Scope::PublicAndOwn(user),
        Viewer::Anyone | Viewer::User(_) | Viewer::Admin => Scope::Public,
    }
}

/// The scope of every search: searches are for buyers and show the same to everyone.
pub const IN_SEARCH: Scope = Scope::Public;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    impl Scope {
        /// Whether a list of this scope may include the listing; the stores apply the same rule as conditions.
        fn includes(self, listing: ListingAccess) -> bool {
            let public = listing.status == Status::Active && listing.visibility == Visibility::Public;
            match self {
                Self::Public => public,
                Self::PublicAndOwn(seller) => public || listing.seller == seller,
                Self::Everything => true,
            }
        }
    }

    const OWNER: UserId = UserId(Uuid::from_u128(1));
    const OTHER: UserId = UserId(Uuid::from_u128(2));

    const VIEWERS: [(&str, Viewer); 4] =
        [("anonymous", Viewer::Anyone), ("other", Viewer::User(OTHER)), ("owner", Viewer::User(OWNER)), ("admin", Viewer::Admin)];

    /// The seller filters of a list.
    const SELLER_FILTERS: [(&str, &[UserId]); 2] = [("all", &[]), ("seller", &[OWNER])];

    /// Status, visibility, and who sees it: by id, in the list of all, in the seller's list, by search.
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
            let listing = ListingAccess {
                status: Status::from_name(status).unwrap(),
                visibility: Visibility::from_name(visibility).unwrap(),
                seller: OWNER,
            };
            let case = format!("{status} {visibility}");
            assert_eq!(who(|viewer| by_id(viewer, listing).is_some()), *by_id_expected, "{case} by id");
            for ((name, sellers), expected) in SELLER_FILTERS.iter().zip([all, own]) {
                assert_eq!(who(|viewer| in_list(viewer, sellers).includes(listing)), *expected, "{case} in the list of {name}");
            }
            assert_eq!(IN_SEARCH.includes(listing), *search == "all", "{case} by search");
        }
        assert_eq!(TABLE.len(), Status::ALL.len() * Visibility::ALL.len(), "a combination is missing");
    }

    #[test]
    fn only_what_everyone_may_see_is_for_shared_caches() {
        for status in Status::ALL {
            for visibility in Visibility::ALL {
                let listing = ListingAccess { status: *status, visibility: *visibility, seller: OWNER };
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
