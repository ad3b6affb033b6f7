//! The wire format: the headers, and the events of listings and stock. A later kind of aggregate has a file beside this one. Events
//! already in the stream can never be edited: if a snapshot here changes, add a new version of the event instead.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::{fs, iter};

use events::{
    AGGREGATES, Aggregate as _, AggregateKey, CausedBy, DecodeError, Event, EventId, ImageId, Listing, ListingChange, ListingId,
    Meta, Money, NewEvent, Recorded, Stock, StockChange, SystemTask, Timestamp, UserId, VariantId,
    listing::{Attribute, Condition, Image, Location, Point, Status, Variant, Visibility},
    stock::Movement,
};
use serde_json::Value;
use uuid::Uuid;

const LISTING: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
const VARIANT: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0002);

fn at() -> Timestamp {
    "2026-11-21T09:30:00.123456Z".parse().unwrap()
}

fn rsd(amount: &str) -> Money {
    Money::parse(amount, "RSD".parse().unwrap()).unwrap()
}

fn listing() -> Listing {
    Listing {
        id: ListingId(LISTING),
        version: 3,
        status: Status::Active,
        visibility: Visibility::Public,
        seller_id: UserId(Uuid::from_u128(3)),
        title: "Slušalice".into(),
        description: String::new(),
        category: Some("electronics/audio/headphones".into()),
        price: rsd("129.99"),
        condition: Condition::New,
        brand: Some("Sony".into()),
        language: Some("sr".into()),
        attributes: vec![
            Attribute { name: "color".into(), value: "black".into(), unit: None },
            Attribute { name: "weight".into(), value: "250".into(), unit: Some("g".into()) },
        ],
        tags: vec!["wireless".into()],
        location: Some(Location {
            country: Some("RS".into()),
            city: Some("Novi Sad".into()),
            address: None,
            point: Some(Point { lat: 45.2671, lon: 19.8335 }),
        }),
        images: vec![Image {
            id: ImageId(Uuid::from_u128(4)),
            url: "https://example.com/1.jpg".into(),
            content_type: None,
            width: None,
            height: None,
            position: 0,
            primary: true,
            alt: None,
        }],
        variants: vec![Variant { id: VariantId(VARIANT), sku: Some("SKU-1".into()), label: None, price: None, available: true }],
        available: true,
        external_id: Some("abc123".into()),
        created_at: at(),
        updated_at: at(),
        published_at: Some(at()),
    }
}

fn stock() -> Stock {
    Stock {
        variant_id: VariantId(VARIANT),
        listing_id: ListingId(LISTING),
        seller_id: UserId(Uuid::from_u128(3)),
        on_hand: 12,
        reserved: 2,
        low_stock_threshold: Some(5),
        version: 3,
        updated_at: at(),
    }
}

fn meta(key: AggregateKey) -> Meta {
    Meta {
        id: EventId(Uuid::from_u128(9)),
        key,
        version: 3,
        time: at(),
        caused_by: Some(CausedBy::User(UserId(Uuid::from_u128(3)))),
        correlation_id: Some("req-1".into()),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

fn of_listing(change: &ListingChange, state: Option<&Listing>) -> Recorded {
    NewEvent { meta: meta(AggregateKey::listing(LISTING)), change, state }.encode().unwrap()
}

fn of_stock(change: &StockChange, state: Option<&Stock>) -> Recorded {
    NewEvent { meta: meta(AggregateKey::stock(VARIANT)), change, state }.encode().unwrap()
}

fn decode(recorded: &Recorded) -> Result<Event, DecodeError> {
    Event::decode(recorded.key, |name| recorded.headers.get(name).map(String::as_str), recorded.body.clone())
}

fn changes_of_listings() -> Vec<(ListingChange, Option<Listing>)> {
    let present = |change| (change, Some(listing()));
    vec![
        present(ListingChange::Created {}),
        present(ListingChange::Updated { fields: vec!["price".into()] }),
        present(ListingChange::Published {}),
        present(ListingChange::Paused {}),
        present(ListingChange::Archived {}),
        present(ListingChange::AvailabilityChanged { variant_id: VariantId(VARIANT), available: true }),
        (ListingChange::Deleted {}, None),
    ]
}

fn changes_of_stock() -> Vec<(StockChange, Option<Stock>)> {
    let present = |change| (change, Some(stock()));
    let moved = |movement, quantity| StockChange::Moved {
        movement,
        quantity,
        reason: Some("count".into()),
        reference: Some("PO-1".into()),
    };
    vec![
        present(StockChange::Opened { on_hand: 12 }),
        present(StockChange::Set { on_hand: Some(12), low_stock_threshold: None, reason: None }),
        present(moved(Movement::In, 5)),
        present(moved(Movement::Out, 5)),
        present(moved(Movement::Adjustment, -5)),
        (StockChange::Removed {}, None),
    ]
}

fn every_event() -> Vec<Recorded> {
    let listings = changes_of_listings();
    let stock = changes_of_stock();
    let listings = listings.iter().map(|(change, state)| of_listing(change, state.as_ref()));
    listings.chain(stock.iter().map(|(change, state)| of_stock(change, state.as_ref()))).collect()
}

#[test]
fn headers() {
    insta::assert_json_snapshot!(of_listing(&ListingChange::Created {}, Some(&listing())).headers);
}

#[test]
fn states() {
    insta::assert_json_snapshot!(serde_json::json!({ "listing": listing(), "stock": stock() }));
}

#[test]
fn changes() {
    let changes: Vec<Value> = every_event()
        .into_iter()
        .map(|recorded| {
            let body: BTreeMap<String, Value> = serde_json::from_slice(&recorded.body).unwrap();
            assert_eq!(body.keys().collect::<Vec<_>>(), ["change", "state"]);
            body["change"].clone()
        })
        .collect();
    insta::assert_json_snapshot!(changes);
}

#[test]
fn every_event_reads_back() {
    for (change, state) in changes_of_listings() {
        let event = decode(&of_listing(&change, state.as_ref())).unwrap();
        assert_eq!(event.meta, meta(AggregateKey::listing(LISTING)));
        assert_eq!((event.state::<Listing>().unwrap(), event.change::<Listing>().unwrap()), (state, Some(change)));
        assert!(event.is_of::<Listing>() && event.state::<Stock>().is_err());
    }
    for (change, state) in changes_of_stock() {
        let event = decode(&of_stock(&change, state.as_ref())).unwrap();
        assert_eq!((event.state::<Stock>().unwrap(), event.change::<Stock>().unwrap()), (state, Some(change)));
    }
}

#[test]
fn the_type_stands_in_the_headers_in_the_body_and_in_the_description() {
    let mut seen = BTreeSet::new();
    for recorded in every_event() {
        let body: Value = serde_json::from_slice(&recorded.body).unwrap();
        assert_eq!(body["change"]["type"], recorded.headers["ce-type"].as_str());
        assert_eq!(recorded.event_type, recorded.headers["ce-type"]);
        seen.insert(recorded.event_type);
    }
    let described: BTreeSet<&str> = [Listing::KIND, Stock::KIND].iter().flat_map(|kind| kind.event_types()).copied().collect();
    assert_eq!(seen, described);
}

#[test]
fn a_snapshot_pins_every_type_of_every_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let pinned: Vec<String> =
        fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for event_type in AGGREGATES.iter().flat_map(|kind| kind.event_types()) {
        let line = format!("\"type\": \"{event_type}\"");
        assert!(pinned.iter().any(|snapshot| snapshot.contains(&line)), "{event_type}");
    }
}

#[test]
fn an_event_says_whether_a_user_or_a_system_task_caused_it() {
    for caused_by in SystemTask::ALL.map(CausedBy::System).into_iter().chain([CausedBy::User(UserId(Uuid::from_u128(3)))]) {
        let meta = Meta { caused_by: Some(caused_by), ..meta(AggregateKey::listing(LISTING)) };
        let recorded =
            NewEvent { meta: meta.clone(), change: &ListingChange::Deleted {}, state: None::<&Listing> }.encode().unwrap();
        assert_eq!(recorded.headers.contains_key("Caused-By"), matches!(caused_by, CausedBy::User(_)));
        assert_eq!(decode(&recorded).unwrap().meta, meta);
    }
}

/// Yesterday's program reads what today's writes, as long as the major version is the same.
#[test]
fn what_a_newer_program_adds_does_not_hide_the_state() {
    let mut recorded = of_listing(&ListingChange::Published {}, Some(&listing()));
    let mut body: Value = serde_json::from_slice(&recorded.body).unwrap();
    // In every object of the state, and in the state itself.
    for object in ["", "/price", "/attributes/0", "/location", "/location/point", "/images/0", "/variants/0"] {
        body["state"].pointer_mut(object).unwrap()["added"] = "B7".into();
    }
    body["change"]["why"] = "sale".into();
    body["added"] = 1.into();
    recorded.body = body.to_string().into();
    let event = decode(&recorded).unwrap();
    assert_eq!(event.state::<Listing>().unwrap(), Some(listing()));
    assert_eq!(event.change::<Listing>().unwrap(), Some(ListingChange::Published {}));

    body["change"] = serde_json::json!({ "type": "listing.promoted.v1", "until": "2027-01-01" });
    recorded.body = body.to_string().into();
    recorded.headers.insert("ce-type".into(), "listing.promoted.v1".into());
    recorded.headers.insert("Caused-By-System".into(), "astrology".into());
    recorded.headers.remove("Caused-By");
    let event = decode(&recorded).unwrap();
    assert_eq!(event.state::<Listing>().unwrap(), Some(listing()));
    assert_eq!((event.change::<Listing>().unwrap(), event.meta.caused_by), (None, None));

    recorded.headers.insert("ce-type".into(), "listing.published.v2".into());
    assert!(matches!(decode(&recorded), Err(DecodeError::Newer { event_type }) if event_type == "listing.published.v2"));
}

#[test]
fn what_is_no_event_is_refused() {
    let recorded = of_listing(&ListingChange::Created {}, Some(&listing()));
    let header = |name: &str| recorded.headers.get(name).map(String::as_str);
    let refused = |key, body: &'static [u8]| {
        let error = Event::decode(key, header, body).and_then(|event| event.state::<Listing>()).unwrap_err();
        iter::successors(Some(&error as &dyn Error), |error| (*error).source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    };

    assert!(refused(recorded.key, b"\xff").starts_with("the body cannot be read"));
    assert!(refused(recorded.key, br#"{"change":{"type":"listing.created.v1"}}"#).contains("missing field `state`"));
    let another = Event::decode(AggregateKey::listing(Uuid::from_u128(8)), header, recorded.body.clone()).unwrap();
    assert!(another.state::<Listing>().unwrap_err().to_string().contains("another aggregate or version"));
    for (name, value, told) in [
        ("Aggregate-Version", None, "header Aggregate-Version is missing"),
        ("ce-type", None, "header ce-type is missing"),
        ("ce-type", Some("listing.created"), "header ce-type cannot be read"),
        ("ce-type", Some("stock.moved.v1"), "header ce-type cannot be read"),
        ("Caused-By", Some("me"), "header Caused-By cannot be read"),
    ] {
        let changed = |asked: &str| if asked == name { value } else { header(asked) };
        assert_eq!(Event::decode(recorded.key, changed, recorded.body.clone()).unwrap_err().to_string(), told);
    }
}
