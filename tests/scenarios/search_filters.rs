//! Search filters, sort orders and facet counts.

use std::collections::BTreeSet;

use acceptance::{ListingDraft, Marketplace, a_listing};
use serde_json::{Value, json};

/// Title, brand, category, price, condition, colour and coordinates.
type ListingRow = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, Option<(f64, f64)>);

const LISTINGS: [ListingRow; 5] = [
    ("a", "Sony", "electronics/audio/headphones", "9.99", "new", "black", Some((45.2671, 19.8335))),
    ("b", "Sony", "electronics/audio/speakers", "10", "used", "Black", Some((44.8125, 20.4612))),
    ("c", "Bose", "electronics/audio/headphones", "499.99", "used", "red", None),
    ("d", "Bose", "electronics/video", "1000", "refurbished", "red", Some((-17.8, 179.5))),
    ("e", "Acme & Sons, \"Ltd\"", "electronicsandmore", "50.5", "new", "black", Some((-17.8, -179.5))),
];

/// Each query, and the titles of the listings that it must find, in any order.
const QUESTIONS: [(&str, &str); 30] = [
    ("", "abcde"),
    ("brand=Sony", "ab"),
    ("brand=Sony&brand=Bose", "abcd"),
    ("brand=sony", ""),
    ("brand=Acme%20%26%20Sons%2C%20%22Ltd%22", "e"),
    ("category=electronics", "abcd"),
    ("category=electronics%2Faudio", "abc"),
    ("category=electronics/video&category=electronicsandmore", "de"),
    ("condition=used&condition=new", "abce"),
    ("brand=Bose&condition=used", "c"),
    ("attr.colour=black", "ae"),
    ("attr.COLOUR=black&attr.colour=Black", "abe"),
    ("attr.colour=black&attr.size=1", ""),
    ("attr.colour=1&attr.size=black", ""),
    ("price_min=10", "bcde"),
    ("price_min=9.99&price_max=10.00", "ab"),
    ("price_min=9.991&price_max=10", "b"),
    ("price_max=999.99&price_max=10", "abce"),
    ("price_min=1&currency=EUR", ""),
    ("currency=RSD&available=true", "abcde"),
    ("available=false", ""),
    ("status=sold", ""),
    ("near=45.2671,19.8335&radius=1km", "a"),
    ("near=45.2671,19.8335&radius=100km", "ab"),
    ("bbox=19,44,21,46", "ab"),
    ("bbox=179,-18,-179,-17", "de"),
    // The edges of a box are inclusive: listing `a` is on this corner.
    ("bbox=19.8335,45.2671,20,46", "a"),
    // ΣΑΣ and İx: the lower case of Σ depends on its position, that of İ is two characters.
    ("attr.%CE%A3%CE%91%CE%A3=a", "a"),
    ("attr.%C4%B0x=b", "b"),
    ("near=45.2671,19.8335", "abde"),
];

fn listing((name, brand, category, price, condition, colour, place): ListingRow) -> ListingDraft {
    let place = place.map(|(lat, lon)| json!({ "point": { "lat": lat, "lon": lon } }));
    a_listing()
        .titled(name)
        .priced(price, "RSD")
        .with("brand", brand)
        .with("category", category)
        .with("condition", condition)
        .with(
            "attributes",
            json!([{ "name": "Colour", "value": colour }, { "name": "size", "value": name },
            { "name": "ΣΑΣ", "value": name }, { "name": "İx", "value": name }]),
        )
        .with("location", place.unwrap_or_default())
        .with_stock(1)
}

fn titles(found: &Value) -> String {
    let items = found["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["title"].as_str()).collect()
}

#[tokio::test]
async fn filters_narrow_and_facets_count() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    for one in LISTINGS {
        ada.publishes(listing(one)).await?;
    }
    market.settle().await?;
    market.opensearch.refresh().await?;
    let ask = async |question: &str| ada.asks(&format!("/api/v1/listings/search?{question}")).await?.expect(200)?.value();

    for (question, expected) in QUESTIONS {
        let found = ask(question).await?;
        let (found_titles, expected_titles): (BTreeSet<_>, BTreeSet<_>) =
            (titles(&found).chars().collect(), expected.chars().collect());
        assert_eq!(found_titles, expected_titles, "{question}");
        assert_eq!(found["total"], json!({ "value": expected.len(), "relation": "eq" }), "{question}");
    }
    for (sort, expected) in [("price", "abecd"), ("-price", "dceba"), ("-created_at", "edcba")] {
        assert_eq!(titles(&ask(&format!("sort={sort}")).await?), expected, "{sort}");
    }
    assert_eq!(titles(&ask("sort=distance&near=44.8,20.4&radius=20000km").await?).get(..2), Some("ba"));

    // The counts of a facet ignore the filter on the facet itself, and respect all other filters.
    let counts = ask("brand=Sony&condition=used&condition=new&facets=brand,condition,category,price,attr.colour&limit=1").await?
        ["facets"]
        .take();
    let value = |value: &str, count: u32| json!({ "value": value, "count": count });
    assert_eq!(counts["brand"], json!([value("Sony", 2), value("Acme & Sons, \"Ltd\"", 1), value("Bose", 1)]));
    assert_eq!(counts["condition"], json!([value("new", 1), value("used", 1)]));
    assert_eq!(
        counts["category"],
        json!([
            value("electronics", 2),
            value("electronics/audio", 2),
            value("electronics/audio/headphones", 1),
            value("electronics/audio/speakers", 1)
        ])
    );
    assert_eq!(counts["attr.colour"], json!([value("Black", 1), value("black", 1)]));
    let steps = |from: &str, to: Option<&str>, count: u32| json!({ "from": from, "to": to, "count": count });
    assert_eq!(
        counts["price"],
        json!([
            steps("0", Some("10"), 1),
            steps("10", Some("50"), 1),
            steps("50", Some("100"), 0),
            steps("100", Some("500"), 0),
            steps("500", Some("1000"), 0),
            steps("1000", None, 0)
        ])
    );
    market.stop().await
}
