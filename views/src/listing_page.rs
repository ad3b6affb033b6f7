//! `listing_page` answers: what does this listing look like, and how many pieces of it are left? Stored in Redis, one string per
//! aggregate.
//!
//! The first line of a page holds what is decided without parsing its JSON: the version, and who may see it. The rest is the JSON
//! that clients get. It is one string because a client reads that in half the time of a hash's fields, and Redis writes it in one step.
//!
//! Every write goes through [`GATE`], so an older version never replaces a newer one, whichever arrives last. A deleted aggregate
//! leaves a tombstone: its version and nothing else. Correctness depends on no key (PROTOCOL P9): each has a time to live, and a
//! reader that misses reads `projection.listings` or `projection.stock_levels`.

use std::time::Duration;

use bytes::Bytes;
use events::{
    Listing, ListingId, Stock, UserId, VariantId,
    listing::{Status, Visibility},
    stock::StockLevel,
};
use serde::Serialize;
use uuid::Uuid;

/// The projection's name, with which its keys begin.
pub const NAME: &str = "listing_page";
/// Time to live of the pages that the projector writes.
pub const PAGE_TTL: Duration = Duration::from_hours(1);
/// Time to live of tombstones. It exceeds the lag of any live projector, so a late event does not bring a deleted listing back.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(24);
/// Time to live of the pages that query-api writes after a miss. It is short because query-api does not update them on later events.
pub const FILL_TTL: Duration = Duration::from_secs(30);
/// Highest version that the gate compares exactly: Lua numbers are doubles (2^53, within the 16 digits that the gate reads).
pub const VERSION_MAX: u64 = 9_007_199_254_740_992;

/// The version gate. `KEYS[1]` is the page's key; `ARGV` is version, time to live in milliseconds, page.
///
/// Returns 1 if it wrote, and 0 if the stored version is the same or newer. For the same version the longer time to live wins:
/// a short-lived fill must not shorten that of a tombstone.
pub const GATE: &str = r"
local held = tonumber(string.match(redis.call('GETRANGE', KEYS[1], 0, 15), '^%d+') or '-1')
local new = tonumber(ARGV[1])
if held > new then
  return 0
end
if held == new then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
return 1
";

/// The key of a listing's page.
#[must_use]
pub fn listing_key(generation: i32, id: ListingId) -> String {
    key(generation, ":listing:", id.0)
}

/// The key of a variant's stock.
#[must_use]
pub fn stock_key(generation: i32, id: VariantId) -> String {
    key(generation, ":stock:", id.0)
}

/// Every read builds a key: encoding the id directly takes a tenth of the time of `format!`.
fn key(generation: i32, kind: &str, id: Uuid) -> String {
    let mut text = Uuid::encode_buffer();
    [NAME, ":", &generation.to_string(), kind, id.hyphenated().encode_lower(&mut text)].concat()
}

/// One call of [`GATE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageWrite {
    pub key: String,
    pub version: u64,
    pub ttl: Duration,
    page: Vec<u8>,
}

impl PageWrite {
    /// Writes the page of a listing.
    ///
    /// # Errors
    /// Never for a listing that was decoded from an event.
    pub fn listing(generation: i32, listing: &Listing) -> Result<Self, serde_json::Error> {
        let Listing { version, status, visibility, seller_id, .. } = listing;
        Ok(Self {
            key: listing_key(generation, listing.id),
            version: *version,
            ttl: PAGE_TTL,
            page: page(&format!("{version} {status} {visibility} {seller_id}"), listing)?,
        })
    }

    /// Writes the tombstone of a deleted listing.
    #[must_use]
    pub fn listing_gone(generation: i32, id: ListingId, version: u64) -> Self {
        Self::gone(listing_key(generation, id), version)
    }

    /// Writes the stock of a variant, as clients see it.
    ///
    /// # Errors
    /// Never for a stock that was decoded from an event.
    pub fn stock(generation: i32, stock: &Stock) -> Result<Self, serde_json::Error> {
        let Stock { version, listing_id, .. } = stock;
        Ok(Self {
            key: stock_key(generation, stock.variant_id),
            version: *version,
            ttl: PAGE_TTL,
            page: page(&format!("{version} {listing_id}"), &StockLevel::from(stock))?,
        })
    }

    /// Writes the tombstone of a removed stock.
    #[must_use]
    pub fn stock_gone(generation: i32, id: VariantId, version: u64) -> Self {
        Self::gone(stock_key(generation, id), version)
    }

    fn gone(key: String, version: u64) -> Self {
        Self { key, version, ttl: TOMBSTONE_TTL, page: version.to_string().into() }
    }

    /// The same write with the time to live of a fill by query-api.
    #[must_use]
    pub fn as_fill(self) -> Self {
        Self { ttl: FILL_TTL, ..self }
    }

    /// The arguments of [`GATE`], after the key.
    #[must_use]
    pub fn arguments(&self) -> [Vec<u8>; 3] {
        let [version, ttl] = [self.version.to_string(), self.ttl.as_millis().to_string()].map(String::into_bytes);
        [version, ttl, self.page.clone()]
    }

    /// The page that a reader finds after this write.
    #[must_use]
    pub fn stored_page<C: PageContent>(&self) -> Option<StoredPage<C>> {
        StoredPage::parse(&Bytes::copy_from_slice(&self.page))
    }
}

fn page(head: &str, body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut page = format!("{head}\n").into_bytes();
    serde_json::to_writer(&mut page, body)?;
    Ok(page)
}

/// A page as readers find it in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPage<C> {
    pub version: u64,
    /// `None` is a tombstone.
    pub content: Option<C>,
}

/// What a page holds for one kind of aggregate, besides the version.
pub trait PageContent: Sized {
    type Id: Copy;

    /// The page's key in Redis.
    fn key(generation: i32, id: Self::Id) -> String;

    /// Reads the rest of the first line. `None` if this projection did not write it.
    fn parse<'a>(header: impl Iterator<Item = &'a str>, body: Bytes) -> Option<Self>;
}

/// A listing's page. `body` is the JSON that clients get; the other fields decide who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingContent {
    pub status: Status,
    pub visibility: Visibility,
    pub seller_id: UserId,
    pub body: Bytes,
}

/// A variant's stock. `body` is the JSON that clients get; whoever may see the listing may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockContent {
    pub listing_id: ListingId,
    pub body: Bytes,
}

impl<C> StoredPage<C> {
    /// The page of an aggregate of which no store has any version.
    pub const NEVER_EXISTED: Self = Self { version: 0, content: None };
}

impl<C: PageContent> StoredPage<C> {
    /// Reads the value of a key. `None` if this projection did not write it; readers treat that as a miss.
    #[must_use]
    pub fn parse(page: &Bytes) -> Option<Self> {
        let end = page.iter().position(|&byte| byte == b'\n').unwrap_or(page.len());
        let mut header = std::str::from_utf8(&page[..end]).ok()?.split(' ').peekable();
        let version = header.next()?.parse().ok()?;
        if header.peek().is_none() {
            return Some(Self { version, content: None });
        }
        let body = page.slice(page.len().min(end + 1)..);
        Some(Self { version, content: Some(C::parse(header, body)?) })
    }
}

impl PageContent for ListingContent {
    type Id = ListingId;

    fn key(generation: i32, id: ListingId) -> String {
        listing_key(generation, id)
    }

    fn parse<'a>(mut header: impl Iterator<Item = &'a str>, body: Bytes) -> Option<Self> {
        Some(Self {
            status: Status::from_name(header.next()?)?,
            visibility: Visibility::from_name(header.next()?)?,
            seller_id: header.next()?.parse().ok()?,
            body,
        })
    }
}

impl PageContent for StockContent {
    type Id = VariantId;

    fn key(generation: i32, id: VariantId) -> String {
        stock_key(generation, id)
    }

    fn parse<'a>(mut header: impl Iterator<Item = &'a str>, body: Bytes) -> Option<Self> {
        Some(Self { listing_id: header.next()?.parse().ok()?, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock() -> Stock {
        Stock {
            variant_id: VariantId(Uuid::from_u128(7)),
            listing_id: ListingId(Uuid::from_u128(1)),
            seller_id: UserId(Uuid::from_u128(3)),
            on_hand: 12,
            reserved: 2,
            low_stock_threshold: None,
            version: 4,
            updated_at: "2026-11-21T09:30:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let write = PageWrite::stock(1, &stock()).unwrap();
        assert_eq!(write.key, "listing_page:1:stock:00000000-0000-0000-0000-000000000007");
        let page: StoredPage<StockContent> = write.stored_page().unwrap();
        let content = page.content.unwrap();
        assert_eq!((page.version, content.listing_id), (4, ListingId(Uuid::from_u128(1))));
        assert_eq!(serde_json::from_slice::<StockLevel>(&content.body).unwrap().available, 10);
    }

    #[test]
    fn a_listing_says_whom_it_is_for() {
        let page = Bytes::from_static(b"7 paused private 00000000-0000-0000-0000-000000000003\n{\"title\":\"two\\nlines\"}");
        let page = StoredPage::<ListingContent>::parse(&page).unwrap();
        let content = page.content.unwrap();
        assert_eq!((page.version, content.status, content.visibility), (7, Status::Paused, Visibility::Private));
        assert_eq!((content.seller_id, &content.body[..]), (UserId(Uuid::from_u128(3)), &br#"{"title":"two\nlines"}"#[..]));
    }

    #[test]
    fn a_tombstone_reads_as_gone_and_lives_longer() {
        let write = PageWrite::listing_gone(2, ListingId(Uuid::from_u128(1)), 9);
        assert_eq!(write.stored_page::<ListingContent>(), Some(StoredPage { version: 9, content: None }));
        assert!(write.ttl > PAGE_TTL);
        assert_eq!(write.as_fill().ttl, FILL_TTL);
    }

    #[test]
    fn what_is_not_ours_is_a_miss() {
        for page in ["", "{}", "1 lost public", "1 active public x\n{}", "-1\n{}", "\u{df}\n"] {
            assert_eq!(StoredPage::<ListingContent>::parse(&Bytes::from(page)), None, "{page}");
        }
        assert_eq!(StoredPage::<ListingContent>::parse(&Bytes::from_static(b"\xff\n{}")), None);
    }
}
