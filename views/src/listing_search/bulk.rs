//! One item of a `_bulk` request: the action line and the document.

use std::io::Write;

use events::{Listing, ListingId};
use serde::Serialize;
use uuid::Uuid;

use super::document;

/// Only a newer version replaces the stored document.
const NEWER: &str = "external";

#[derive(Serialize)]
struct Action<'a> {
    index: Target<'a>,
}

#[derive(Serialize)]
struct Target<'a> {
    _index: &'a str,
    _id: Uuid,
    version: u64,
    version_type: &'static str,
}

/// Appends a listing's document to a `_bulk` body.
pub fn put(bulk: &mut Vec<u8>, index: &str, listing: &Listing) -> Result<(), serde_json::Error> {
    put_action(bulk, index, listing.id, listing.version)?;
    put_line(bulk, &document::document(listing)?)
}

/// Appends a listing's tombstone to a `_bulk` body.
pub fn put_tombstone(bulk: &mut Vec<u8>, index: &str, id: ListingId, version: u64) -> Result<(), serde_json::Error> {
    put_action(bulk, index, id, version)?;
    put_line(bulk, &document::tombstone(id, version)?)
}

fn put_action(bulk: &mut Vec<u8>, index: &str, id: ListingId, version: u64) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *bulk, &Action { index: Target { _index: index, _id: id.0, version, version_type: NEWER } })?;
    bulk.push(b'\n');
    Ok(())
}

fn put_line(bulk: &mut Vec<u8>, line: &[u8]) -> Result<(), serde_json::Error> {
    bulk.write_all(line).and_then(|()| bulk.write_all(b"\n")).map_err(serde_json::Error::io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_two_lines_and_carries_the_external_version() {
        let mut bulk = Vec::new();
        put_tombstone(&mut bulk, "listings-1", ListingId(Uuid::nil()), 7).unwrap();
        assert_eq!(
            String::from_utf8(bulk).unwrap(),
            concat!(
                r#"{"index":{"_index":"listings-1","_id":"00000000-0000-0000-0000-000000000000","version":7,"version_type":"external"}}"#,
                "\n",
                r#"{"deleted":true,"id":"00000000-0000-0000-0000-000000000000","version":7}"#,
                "\n"
            )
        );
    }
}
