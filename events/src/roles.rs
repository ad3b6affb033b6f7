//! The roles of the marketplace's users, as tokens name them.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// A set of roles. A token names each by its lower-case name, such as `seller`.
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

    /// The union of two sets. A constant can use it; `|` cannot be used there.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two sets have a role in common.
    #[must_use]
    pub const fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// The roles of these names. A name that is not one of ours is ignored: the token may serve other systems too.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_other_systems_are_ignored() {
        let roles = Roles::known(["seller", "janitor", "Admin", ""]);
        assert_eq!(roles, Roles::SELLER);
        assert!(roles.has_any(Roles::SELLER | Roles::ADMIN) && !roles.has_any(Roles::ADMIN | Roles::SERVICE | Roles::USER));
        assert!(!Roles::NONE.has_any(Roles::NONE));
    }

    #[test]
    fn names_are_read_and_written_in_one_order() {
        let roles = Roles::known(["admin", "seller"]);
        assert_eq!(roles.to_string(), "seller, admin");
        assert_eq!(Roles::known(roles.names()), roles);
        assert!("janitor".parse::<Roles>().is_err());
    }
}
