//! A listing's page as every store gives it: the bytes that clients get, and what decides who gets them.

use bytes::Bytes;
use events::Listing;
use http::HeaderValue;
use service::http::ETag;
use views::listing_page::HeldListing;

use crate::visibility::Standing;

/// A page before anyone asked who looks. `Gone` with version 0 was never there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    Gone { version: u64 },
    Present(PresentPage),
}

/// A page of a listing that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentPage {
    pub version: u64,
    pub standing: Standing,
    pub etag: HeaderValue,
    /// JSON as the projector rendered it: nobody parses or writes it again.
    pub body: Bytes,
}

impl Page {
    pub const NEVER_WAS: Self = Self::Gone { version: 0 };

    #[must_use]
    pub fn version(&self) -> u64 {
        match self {
            Self::Gone { version } => *version,
            Self::Present(page) => page.version,
        }
    }

    /// What a page weighs in memory, in bytes, without what is around its body.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::Gone { .. } => 0,
            Self::Present(page) => page.body.len() as u64,
        }
    }

    /// Renders a listing that Postgres gave, in the bytes that the projector would have written.
    pub fn render(listing: &Listing) -> Result<Self, serde_json::Error> {
        Ok(Self::Present(PresentPage {
            version: listing.version,
            standing: listing.into(),
            etag: ETag::of(listing.version).header(),
            body: serde_json::to_vec(listing)?.into(),
        }))
    }
}

impl From<HeldListing> for Page {
    fn from(held: HeldListing) -> Self {
        match held {
            HeldListing::Gone { version } => Self::Gone { version },
            HeldListing::Page(page) => Self::Present(PresentPage {
                version: page.version,
                standing: Standing { status: page.status, visibility: page.visibility, seller: page.seller_id },
                etag: ETag::of(page.version).header(),
                body: page.body,
            }),
        }
    }
}
