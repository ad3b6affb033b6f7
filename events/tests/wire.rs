//! The wire format. Events already in the stream can never be edited: if a snapshot here changes, add a new version of the
//! event instead.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made is a failed test")]

use std::collections::BTreeMap;
use std::error::Error;
use std::iter;

use events::{
    AggregateKey, Event, EventId, Fact, ImageId, Listing, ListingChange, ListingId, Meta, Money, Stock, StockChange, Timestamp,
    UserId, VariantId,
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

fn event(fact: Fact) -> Event {
    let key = match &fact {
        Fact::Listing { .. } => AggregateKey::listing(LISTING),
        Fact::Stock { .. } => AggregateKey::stock(VARIANT),
    };
    Event {
        meta: Meta {
            id: EventId(Uuid::from_u128(9)),
            key,
            version: 3,
            time: at(),
            caused_by: Some(UserId(Uuid::from_u128(3))),
            correlation_id: Some("req-1".into()),
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        },
        fact,
    }
}

fn every_fact() -> Vec<Fact> {
    let of_listing = |change| Fact::Listing { change, state: Some(listing()) };
    let of_stock = |change| Fact::Stock { change, state: Some(stock()) };
    let moved = |movement, quantity| StockChange::Moved {
        movement,
        quantity,
        reason: Some("count".into()),
        reference: Some("PO-1".into()),
    };
    vec![
        of_listing(ListingChange::Created {}),
        of_listing(ListingChange::Updated { fields: vec!["price".into()] }),
        of_listing(ListingChange::Published {}),
        of_listing(ListingChange::Paused {}),
        of_listing(ListingChange::Archived {}),
        of_listing(ListingChange::AvailabilityChanged { variant_id: VariantId(VARIANT), available: true }),
        Fact::Listing { change: ListingChange::Deleted {}, state: None },
        of_stock(StockChange::Opened { on_hand: 12 }),
        of_stock(StockChange::Set { on_hand: Some(12), low_stock_threshold: None, reason: None }),
        of_stock(moved(Movement::In, 5)),
        of_stock(moved(Movement::Out, 5)),
        of_stock(moved(Movement::Adjustment, -5)),
        Fact::Stock { change: StockChange::Removed {}, state: None },
    ]
}

#[test]
fn headers() {
    let recorded = event(Fact::Listing { change: ListingChange::Created {}, state: Some(listing()) }).encode().unwrap();
    insta::assert_json_snapshot!(recorded.headers);
}

#[test]
fn states() {
    insta::assert_json_snapshot!(serde_json::json!({ "listing": listing(), "stock": stock() }));
}

#[test]
fn changes() {
    let changes: Vec<Value> = every_fact()
        .into_iter()
        .map(|fact| {
            let body: BTreeMap<String, Value> = serde_json::from_slice(&event(fact).encode().unwrap().body).unwrap();
            assert_eq!(body.keys().collect::<Vec<_>>(), ["change", "state"]);
            body["change"].clone()
        })
        .collect();
    insta::assert_json_snapshot!(changes);
}

#[test]
fn every_event_reads_back_and_says_its_type_twice() {
    for fact in every_fact() {
        let event = event(fact);
        let recorded = event.encode().unwrap();
        let header = |name: &str| recorded.headers.get(name).map(String::as_str);
        assert_eq!(Event::decode(recorded.key, header, &recorded.body).unwrap(), event);
        let body: Value = serde_json::from_slice(&recorded.body).unwrap();
        assert_eq!(body["change"]["type"], recorded.headers["ce-type"].as_str());
        assert_eq!(recorded.event_type, recorded.headers["ce-type"]);
    }
}

#[test]
fn what_is_no_event_is_refused() {
    let recorded = event(Fact::Listing { change: ListingChange::Created {}, state: Some(listing()) }).encode().unwrap();
    let header = |name: &str| recorded.headers.get(name).map(String::as_str);
    let refused = |key, body: &[u8]| {
        let error = Event::decode(key, header, body).unwrap_err();
        iter::successors(Some(&error as &dyn Error), |error| (*error).source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    };

    assert!(refused(recorded.key, b"\xff").starts_with("the body cannot be read"));
    assert!(refused(recorded.key, br#"{"change":{"type":"listing.created.v1"}}"#).contains("missing field `state`"));
    assert!(refused(recorded.key, br#"{"change":{"type":"listing.eaten.v1"},"state":null}"#).contains("unknown variant"));
    assert!(refused(AggregateKey::listing(Uuid::from_u128(8)), &recorded.body).contains("another aggregate or version"));
    let without = Event::decode(recorded.key, |name| header(name).filter(|_| name != "Aggregate-Version"), &recorded.body);
    assert_eq!(without.unwrap_err().to_string(), "header Aggregate-Version is missing");
}
