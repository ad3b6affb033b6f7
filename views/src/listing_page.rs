//! Show one listing, and its stock, fast: Redis, one hash per aggregate, joined on read.
//!
//! Every write goes through [`GATE`], so that an older version never replaces a newer one, whoever comes last. What is gone is
//! a tombstone: a hash with a version and no body. Correctness rests on no key (PROTOCOL P9): each has a time to live, and a
//! reader that misses asks `projection.listings` or `projection.stock_levels`.

use std::time::Duration;

use events::{
    Listing, ListingId, Stock, UserId, VariantId,
    listing::{Status, Visibility},
    stock::StockLevel,
};

/// How long the projector's pages live: the busy ones are written again long before.
pub const PAGE_TTL: Duration = Duration::from_hours(1);
/// Longer than any event can be late in a live system, so that what is gone is not shown again.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(24);
/// What query-api fills on a miss lives at most this long: only the projector hears of the next change.
pub const FILL_TTL: Duration = Duration::from_secs(30);
/// Versions are compared in Lua, whose numbers are doubles: exact up to here (2^53).
pub const VERSION_MAX: u64 = 9_007_199_254_740_992;

/// The version gate. `KEYS[1]`; `ARGV`: version, mode, time to live in milliseconds, then field, value, …
/// Answers 1 if it wrote and 0 if what it held was newer (or, in mode `newer`, the same). What is the same lives as long as either
/// writer wants: a short-lived fill must not shorten the tombstone that comes after it.
pub const GATE: &str = r"
local held = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
local new = tonumber(ARGV[1])
if held > new then
  return 0
end
if held == new and ARGV[2] ~= 'newer-or-same' then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// Fields of a listing's hash, in the order in which [`HeldListing::read`] takes them.
pub const LISTING_FIELDS: [&str; 5] = ["version", "body", "status", "visibility", "seller"];
/// Fields of a stock's hash, in the order in which [`HeldStock::read`] takes them.
pub const STOCK_FIELDS: [&str; 3] = ["version", "body", "listing"];

/// When the gate lets a write through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The rule: only a newer version.
    Newer,
    /// A repair: the same version is written again (PROTOCOL G5).
    NewerOrSame,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Newer => "newer",
            Self::NewerOrSame => "newer-or-same",
        }
    }
}

/// The key of a listing's page.
#[must_use]
pub fn listing_key(generation: i32, id: ListingId) -> String {
    format!("page:{generation}:listing:{id}")
}

/// The key of a variant's stock.
#[must_use]
pub fn stock_key(generation: i32, id: VariantId) -> String {
    format!("page:{generation}:stock:{id}")
}

/// One call of [`GATE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub version: u64,
    pub ttl: Duration,
    /// Name, value, name, value, …
    fields: Vec<Vec<u8>>,
}

impl Write {
    /// The page of a listing.
    ///
    /// # Errors
    /// Never for a listing that was decoded from an event.
    pub fn listing(generation: i32, listing: &Listing) -> Result<Self, serde_json::Error> {
        Ok(Self {
            key: listing_key(generation, listing.id),
            version: listing.version,
            ttl: PAGE_TTL,
            fields: fields([
                ("body", serde_json::to_vec(listing)?),
                ("status", listing.status.as_str().into()),
                ("visibility", listing.visibility.as_str().into()),
                ("seller", listing.seller_id.to_string().into()),
            ]),
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
        Ok(Self {
            key: stock_key(generation, stock.variant_id),
            version: stock.version,
            ttl: PAGE_TTL,
            fields: fields([
                ("body", serde_json::to_vec(&StockLevel::from(stock))?),
                ("listing", stock.listing_id.to_string().into()),
            ]),
        })
    }

    /// Says that a variant's stock is gone.
    #[must_use]
    pub fn stock_gone(generation: i32, id: VariantId, version: u64) -> Self {
        Self::gone(stock_key(generation, id), version)
    }

    fn gone(key: String, version: u64) -> Self {
        Self { key, version, ttl: TOMBSTONE_TTL, fields: fields([("deleted", b"1".to_vec())]) }
    }

    /// The same write as query-api makes it on a miss: short-lived.
    #[must_use]
    pub fn as_fill(self) -> Self {
        Self { ttl: FILL_TTL, ..self }
    }

    /// The arguments of [`GATE`], after the key.
    pub fn arguments(&self, mode: Mode) -> impl Iterator<Item = Vec<u8>> {
        [self.version.to_string(), mode.as_str().to_owned(), self.ttl.as_millis().to_string()]
            .map(String::into_bytes)
            .into_iter()
            .chain(self.fields.iter().cloned())
    }
}

fn fields<const N: usize>(pairs: [(&str, Vec<u8>); N]) -> Vec<Vec<u8>> {
    pairs.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value]).collect()
}

/// A listing's hash as its reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldListing {
    Page(ListingPage),
    Gone { version: u64 },
}

/// A listing's page: the body is the JSON that clients get; the rest says who may see it, without parsing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingPage {
    pub version: u64,
    pub status: Status,
    pub visibility: Visibility,
    pub seller_id: UserId,
    pub body: Vec<u8>,
}

impl HeldListing {
    /// Reads the values of [`LISTING_FIELDS`]. `None` is a miss: no such key, or one that is not ours.
    #[must_use]
    pub fn read([version, body, status, visibility, seller]: [Option<Vec<u8>>; 5]) -> Option<Self> {
        let version = parse(version)?;
        let Some(body) = body else {
            return Some(Self::Gone { version });
        };
        Some(Self::Page(ListingPage {
            version,
            status: Status::from_name(&text(status)?)?,
            visibility: Visibility::from_name(&text(visibility)?)?,
            seller_id: parse(seller)?,
            body,
        }))
    }
}

/// A stock's hash as its reader finds it.
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
    pub body: Vec<u8>,
}

impl HeldStock {
    /// Reads the values of [`STOCK_FIELDS`]. `None` is a miss: no such key, or one that is not ours.
    #[must_use]
    pub fn read([version, body, listing]: [Option<Vec<u8>>; 3]) -> Option<Self> {
        let version = parse(version)?;
        let Some(body) = body else {
            return Some(Self::Gone { version });
        };
        Some(Self::Page(StockPage { version, listing_id: parse(listing)?, body }))
    }
}

fn text(value: Option<Vec<u8>>) -> Option<String> {
    String::from_utf8(value?).ok()
}

fn parse<T: std::str::FromStr>(value: Option<Vec<u8>>) -> Option<T> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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

    /// What a hash holds after the gate wrote it.
    fn hash<const N: usize>(write: &Write, names: [&str; N]) -> [Option<Vec<u8>>; N] {
        names.map(|name| {
            if name == "version" {
                return Some(write.version.to_string().into());
            }
            write.fields.chunks(2).find(|pair| pair[0] == name.as_bytes()).map(|pair| pair[1].clone())
        })
    }

    #[test]
    fn what_is_written_reads_back() {
        let write = Write::stock(1, &stock()).unwrap();
        assert_eq!(write.key, "page:1:stock:00000000-0000-0000-0000-000000000007");
        let Some(HeldStock::Page(page)) = HeldStock::read(hash(&write, STOCK_FIELDS)) else { panic!("no page") };
        assert_eq!((page.version, page.listing_id), (4, ListingId(Uuid::from_u128(1))));
        assert_eq!(serde_json::from_slice::<StockLevel>(&page.body).unwrap().available, 10);
    }

    #[test]
    fn a_tombstone_reads_as_gone_and_lives_longer() {
        let write = Write::listing_gone(2, ListingId(Uuid::from_u128(1)), 9);
        assert_eq!(HeldListing::read(hash(&write, LISTING_FIELDS)), Some(HeldListing::Gone { version: 9 }));
        assert!(write.ttl > PAGE_TTL);
        assert_eq!(write.as_fill().ttl, FILL_TTL);
    }

    #[test]
    fn a_missing_or_foreign_hash_is_a_miss() {
        assert_eq!(HeldListing::read([const { None }; 5]), None);
        let foreign = [Some(b"1".to_vec()), Some(b"{}".to_vec()), Some(b"lost".to_vec()), None, None];
        assert_eq!(HeldListing::read(foreign), None);
    }
}
