//! Ids of aggregates and events. Ids made here are UUIDv7; an id in a request may be a UUID of any version.

/// Defines id types. A later aggregate defines its id in its own file; this macro is in scope there.
macro_rules! id {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(::serde::Serialize, ::serde::Deserialize, ::utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = "uuid", example = "0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b")]
        pub struct $name(pub ::uuid::Uuid);

        impl $name {
            /// A new id, ordered by time (UUIDv7).
            #[must_use]
            pub fn new() -> Self {
                Self(::uuid::Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl From<::uuid::Uuid> for $name {
            fn from(id: ::uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for ::uuid::Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ::uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

id! {
    /// A listing.
    ListingId,
    /// A variant of a listing; its stock carries the same id.
    VariantId,
    /// Somebody who acts: the `sub` of a token. A seller is a user.
    UserId,
    /// A picture of a listing.
    ImageId,
    /// One event: the `ce-id` on the wire.
    EventId,
}
