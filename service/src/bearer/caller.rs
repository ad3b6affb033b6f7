//! What a believed token says of its bearer.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use uuid::Uuid;

use crate::problem::Problem;

/// Who calls, and what they are allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub id: Uuid,
    pub roles: Roles,
}

impl Caller {
    /// Whether the caller has one of these roles.
    #[must_use]
    pub fn is(&self, any_of: Roles) -> bool {
        self.roles.has_any(any_of)
    }

    /// Refuses callers who have none of these roles.
    pub fn require(&self, any_of: Roles) -> Result<(), Problem> {
        if self.is(any_of) { Ok(()) } else { Err(Problem::forbidden(format!("This needs one of the roles {any_of}"))) }
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    pub const NONE: Self = Self(0);
    pub const USER: Self = Self(1);
    pub const SELLER: Self = Self(1 << 1);
    pub const ADMIN: Self = Self(1 << 2);
    pub const SERVICE: Self = Self(1 << 3);

    const NAMES: [(&'static str, Self); 4] =
        [("user", Self::USER), ("seller", Self::SELLER), ("admin", Self::ADMIN), ("service", Self::SERVICE)];

    /// For constants, where `|` cannot be used.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Those of the names that are roles; others are somebody else's and are passed over.
    pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(|name| name.parse().ok()).fold(Self::NONE, Self::or)
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |&(_, role)| self.has_any(role)).map(|(name, _)| name)
    }
}

impl BitOr for Roles {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

impl FromStr for Roles {
    type Err = String;

    /// One role, by its name.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.into_iter().find(|&(known, _)| known == name);
        found.map(|(_, role)| role).ok_or_else(|| format!("{name:?} is no role; there are user, seller, admin and service"))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        f.write_str(&names.join(", "))
    }
}
