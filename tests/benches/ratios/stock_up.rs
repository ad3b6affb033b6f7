//! Fills a marketplace with generated listings.

use acceptance::{Marketplace, Person};
use reqwest::Method;
use serde_json::{Value, json};

/// Lines per `POST /listings/batch` request.
const BATCH: usize = 1000;

/// Kinds of generated listings, in the order of their numbers.
pub const KINDS: [&str; 10] = ["lamp", "chair", "bicycle", "kettle", "camera", "guitar", "tent", "jacket", "router", "drill"];

/// Returns the `n`-th generated listing, whose event has about a kilobyte.
pub fn listing(n: u64) -> Value {
    let kind = KINDS[(n % 10) as usize];
    json!({
        "title": format!("{kind} number {n} in good order"),
        "description": "Kept in a dry place, complete, with the papers that came with it. Can be seen on any afternoon; \
                        sent by post when wished for. No exchange.",
        "category": format!("things/{kind}s"),
        "price": { "amount": format!("{}.50", 100 + n % 9000), "currency": "RSD" },
        "condition": "used",
        "brand": format!("Brand {}", n % 40),
        "language": "en",
        "attributes": [{ "name": "color", "value": "black" }, { "name": "weight", "value": "250", "unit": "g" }],
        "tags": ["bench"],
        "location": { "country": "RS", "city": "Novi Sad", "point": { "lat": 45.2671, "lon": 19.8335 } },
    })
}

/// Creates listings in batches, and returns their ids in order.
pub async fn post(seller: &Person<'_>, listings: &[Value]) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::with_capacity(listings.len());
    for batch in listings.chunks(BATCH) {
        let body = batch.iter().fold(String::new(), |body, listing| body + &listing.to_string() + "\n");
        let request = seller.command(Method::POST, "/api/v1/listings/batch")?.body("application/x-ndjson", body);
        let answer = request.send().await?.expect(200)?;
        for line in answer.body.lines() {
            let line: Value = serde_json::from_str(line)?;
            let id = line["id"].as_str();
            ids.push(id.ok_or_else(|| anyhow::anyhow!("a listing was refused: {line}"))?.to_owned());
        }
    }
    Ok(ids)
}

/// Creates this many generated listings, and returns their ids.
pub async fn with(market: &Marketplace, count: u64) -> anyhow::Result<Vec<String>> {
    let listings: Vec<Value> = (0..count).map(listing).collect();
    post(&market.seller("bench")?, &listings).await
}
