//! Show one listing, and its stock, fast: Redis, one string per aggregate, joined on read.
//!
//! Its first line says what decides about the page without parsing it: the version, and for whom it is. The rest is the JSON that
//! clients get. One string, because a client reads it in half the time of a hash's fields, and Redis writes it in one step.
//!
//! Every write goes through [`GATE`], so that an older version never replaces a newer one, whoever comes last. What is gone is
//! a tombstone: a version and nothing else. Correctness rests on no key (PROTOCOL P9): each has a time to live, and a
//! reader that misses asks `projection.listings` or `projection.stock_levels`.

use std::time::Duration;

use bytes::Bytes;
use events::{
    Listing, ListingId, Stock, UserId, VariantId,
    listing::{Status, Visibility},
    stock::StockLevel,
};
use serde::Serialize;
use uuid::Uuid;

/// Of the projection, and what its keys begin with.
pub const NAME: &str = "listing_page";
/// How long the projector's pages live: the busy ones are written again long before.
pub const PAGE_TTL: Duration = Duration::from_hours(1);
/// Longer than any event can be late in a live system, so that what is gone is not shown again.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(24);
/// What query-api fills on a miss lives at most this long: only the projector hears of the next change.
pub const FILL_TTL: Duration = Duration::from_secs(30);
/// Versions are compared in Lua, whose numbers are doubles: exact up to here (2^53, of the 16 digits that the gate reads).
pub const VERSION_MAX: u64 = 9_007_199_254_740_992;

/// The version gate. `KEYS[1]`; `ARGV`: version, time to live in milliseconds, page.
/// Answers 1 if it wrote and 0 if what it held was newer or the same. What is the same lives as long as either writer wants: a
/// short-lived fill must not shorten the tombstone that comes after it.
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

/// Every read makes one: an id is written into it in a tenth of the time that `format!` takes.
fn key(generation: i32, kind: &str, id: Uuid) -> String {
    let mut text = Uuid::encode_buffer();
    [NAME, ":", &generation.to_string(), kind, id.hyphenated().encode_lower(&mut text)].concat()
}

/// One call of [`GATE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub version: u64,
    pub ttl: Duration,
    page: Vec<u8>,
}

impl Write {
    /// The page of a listing.
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

    /// Says that a listing is gone.
    #[must_use]
    pub fn listing_gone(generation: i32, id: ListingId, version: u64) -> Self {
        Self::gone(listing_key(generation, id), version)
    }

    /// The stock of a variant, as clients see it.
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

    /// Says that a variant's stock is gone.
    #[must_use]
    pub fn stock_gone(generation: i32, id: VariantId, version: u64) -> Self {
        Self::gone(stock_key(generation, id), version)
    }

    fn gone(key: String, version: u64) -> Self {
        Self { key, version, ttl: TOMBSTONE_TTL, page: version.to_string().into() }
    }

    /// The same write as query-api makes it on a miss: short-lived.
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
}

fn page(head: &str, body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut page = format!("{head}\n").into_bytes();
    serde_json::to_writer(&mut page, body)?;
    Ok(page)
}

/// A listing as its reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldListing {
    Page(ListingPage),
    Gone { version: u64 },
}

/// A listing's page: the body is the JSON that clients get; the rest says who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingPage {
    pub version: u64,
    pub status: Status,
    pub visibility: Visibility,
    pub seller_id: UserId,
    pub body: Bytes,
}

impl HeldListing {
    /// Reads what is at [`listing_key`]. `None` is a miss: not ours.
    #[must_use]
    pub fn read(page: &Bytes) -> Option<Self> {
        let (head, body) = open(page)?;
        let mut head = head.split(' ');
        let version = head.next()?.parse().ok()?;
        let Some(status) = head.next() else {
            return Some(Self::Gone { version });
        };
        Some(Self::Page(ListingPage {
            version,
            status: Status::from_name(status)?,
            visibility: Visibility::from_name(head.next()?)?,
            seller_id: head.next()?.parse().ok()?,
            body,
        }))
    }
}

/// A stock as its reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldStock {
    Page(StockPage),
    Gone { version: u64 },
}

/// A variant's stock: the body is the JSON that clients get; it is visible as its listing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockPage {
    pub version: u64,
    pub listing_id: ListingId,
    pub body: Bytes,
}

impl HeldStock {
    /// Reads what is at [`stock_key`]. `None` is a miss: not ours.
    #[must_use]
    pub fn read(page: &Bytes) -> Option<Self> {
        let (head, body) = open(page)?;
        let mut head = head.split(' ');
        let version = head.next()?.parse().ok()?;
        let Some(listing_id) = head.next() else {
            return Some(Self::Gone { version });
        };
        Some(Self::Page(StockPage { version, listing_id: listing_id.parse().ok()?, body }))
    }
}

/// Its first line, and the rest.
fn open(page: &Bytes) -> Option<(&str, Bytes)> {
    let end = page.iter().position(|&byte| byte == b'\n').unwrap_or(page.len());
    let head = std::str::from_utf8(&page[..end]).ok()?;
    Some((head, page.slice(page.len().min(end + 1)..)))
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

    fn written(write: &Write) -> Bytes {
        let [_, _, page] = write.arguments();
        page.into()
    }

    #[test]
    fn what_is_written_reads_back() {
        let write = Write::stock(1, &stock()).unwrap();
        assert_eq!(write.key, "listing_page:1:stock:00000000-0000-0000-0000-000000000007");
        let Some(HeldStock::Page(page)) = HeldStock::read(&written(&write)) else { panic!("no page") };
        assert_eq!((page.version, page.listing_id), (4, ListingId(Uuid::from_u128(1))));
        assert_eq!(serde_json::from_slice::<StockLevel>(&page.body).unwrap().available, 10);
    }

    #[test]
    fn a_listing_says_whom_it_is_for() {
        let page = Bytes::from_static(b"7 paused private 00000000-0000-0000-0000-000000000003\n{\"title\":\"two\\nlines\"}");
        let Some(HeldListing::Page(page)) = HeldListing::read(&page) else { panic!("no page") };
        assert_eq!((page.version, page.status, page.visibility), (7, Status::Paused, Visibility::Private));
        assert_eq!((page.seller_id, &page.body[..]), (UserId(Uuid::from_u128(3)), &br#"{"title":"two\nlines"}"#[..]));
    }

    #[test]
    fn a_tombstone_reads_as_gone_and_lives_longer() {
        let write = Write::listing_gone(2, ListingId(Uuid::from_u128(1)), 9);
        assert_eq!(HeldListing::read(&written(&write)), Some(HeldListing::Gone { version: 9 }));
        assert!(write.ttl > PAGE_TTL);
        assert_eq!(write.as_fill().ttl, FILL_TTL);
    }

    #[test]
    fn what_is_not_ours_is_a_miss() {
        for page in ["", "{}", "1 lost public", "1 active public x\n{}", "-1\n{}", "\u{df}\n"] {
            assert_eq!(HeldListing::read(&Bytes::from(page)), None, "{page}");
        }
        assert_eq!(HeldListing::read(&Bytes::from_static(b"\xff\n{}")), None);
    }
}
