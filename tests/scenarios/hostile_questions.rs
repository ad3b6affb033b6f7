//! Malformed and hostile queries: refused with 400, or answered without a hit, never with a server error.

use acceptance::{Marketplace, a_listing};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// Malformed paths and parameters: 400.
const MALFORMED: &[&str] = &[
    "/api/v1/listings/1",
    "/api/v1/listings/%00",
    "/api/v1/listings/%27%20or%201=1--",
    "/api/v1/listings/..%2F..%2Fetc%2Fpasswd",
    "/api/v1/listings/%ff%fe",
    "/api/v1/listings/01a1fcb0-703c-7773-8c9e-d4e5d6bdf485?fields=title",
    "/api/v1/variants/x/stock",
    "/api/v1/variants/%7B%22match_all%22:%7B%7D%7D/stock",
    "/api/v1/variants/01a1fcb0-703c-7773-8c9e-d4e5d6bdf485/stock?x",
];

/// Parameters that both lists and searches refuse.
const MALFORMED_PARAMETERS: &[&str] = &[
    "unknown=1",
    "limit=0",
    "limit=101",
    "limit=-1",
    "limit=1e2",
    "limit=99999999999999999999",
    "limit=5&limit=6",
    "sort=price;drop%20table",
    "sort=_score",
    "sort=-id",
    "sort=",
    "sort=price&sort=title",
    "status=activ",
    "status=%27",
    "condition=%7B%22match_all%22:%7B%7D%7D",
    "currency=rsd",
    "currency=RSD%27--",
    "price_min=1e3",
    "price_min=-1",
    "price_max=NaN",
    "price_min=1%27%20or%20%271",
    "available=maybe",
    "available=1",
    "seller_id=me",
    "seller_id=%27%20or%201=1--",
    "brand=%00",
    "tag=a%00b",
    "category=%00",
    "brand=%ff",
    "%00=1",
    "cursor=",
    "cursor=%00",
    "cursor=e30",
    "cursor=bm90IGpzb24",
];

/// Malformed values of parameters that only searches have; lists refuse them as unknown.
const MALFORMED_SEARCHES: &[&str] = &[
    "near=1",
    "near=91,0",
    "near=NaN,NaN",
    "near=1,2&radius=-1km",
    "near=1,2&radius=1%20parsec",
    "radius=1km",
    "bbox=1,2,3",
    "bbox=0,10,1,5",
    "bbox=1,2,1,3",
    "bbox=0,2,1,2",
    "bbox=%7B%7D",
    "facets=_id",
    "facets=title",
    "facets=brand,",
    "facets=attr.",
    "highlight=yes",
    "q=%00",
    "q=%ff",
    "sort=distance",
    "attr.=x",
    "attr.color=%00",
];

/// Filter values that are treated as plain text and match nothing.
const NO_HIT: &[&str] = &[
    "brand=%27%20or%201=1--",
    "brand=*",
    "tag=%7B%22match_all%22:%7B%7D%7D",
    "category=%25",
    "category=sport%2F..%2F",
    "category=spor",
    "brand=%F0%9F%92%A9",
];

/// The same for searches.
const NO_HIT_SEARCHES: &[&str] = &[
    "q=%27%20or%201=1--%20zzz",
    "q=%22%3A%7B%7D%7D%20zzz",
    "q=title:zzz%20OR%20zzz*",
    "q=zzz%20%26%20%7C%20!%20()%20:*",
    "attr.color%27=x",
    "attr.a.b*=x",
    "attr.%22=%22",
    "near=0,0&radius=1m",
    "bbox=-180,-90,-179,-89",
];

#[tokio::test]
async fn hostile_questions_are_refused_and_break_nothing() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;

    for path in MALFORMED {
        ada.asks(path).await?.expect_problem(400, "malformed")?;
    }
    for route in ["/api/v1/listings", "/api/v1/listings/search", "/api/v1/search"] {
        for parameters in MALFORMED_PARAMETERS {
            ada.asks(&format!("{route}?{parameters}")).await?.expect_problem(400, "malformed")?;
        }
        for parameters in NO_HIT {
            let page = ada.asks(&format!("{route}?{parameters}")).await?.expect(200)?.value()?;
            assert_eq!(page["items"], json!([]), "{route}?{parameters}");
        }
    }
    for parameters in MALFORMED_SEARCHES {
        ada.asks(&format!("/api/v1/listings/search?{parameters}")).await?.expect_problem(400, "malformed")?;
        ada.asks(&format!("/api/v1/listings?{parameters}")).await?.expect_problem(400, "malformed")?;
    }
    for parameters in NO_HIT_SEARCHES {
        let page = ada.asks(&format!("/api/v1/listings/search?{parameters}")).await?.expect(200)?.value()?;
        assert_eq!(page["items"], json!([]), "{parameters}");
    }
    market.stop().await
}

#[tokio::test]
async fn no_field_of_a_cursor_is_trusted() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    for _ in 0..3 {
        ada.publishes(a_listing()).await?;
    }
    market.settle().await?;
    let questions = [
        "/api/v1/listings?limit=1&sort=-created_at",
        "/api/v1/listings?limit=1&sort=price",
        "/api/v1/listings?limit=1&sort=-price",
        "/api/v1/listings?limit=1&sort=title",
        "/api/v1/listings/search?limit=1&q=bicycle",
        "/api/v1/listings/search?limit=1&sort=-created_at",
        "/api/v1/listings/search?limit=1&sort=price",
        "/api/v1/listings/search?limit=1&sort=distance&near=45,19",
    ];
    let bad_keys = [
        json!([]),
        json!(["x"]),
        json!(["x", "y"]),
        json!([1, 2]),
        json!([null, null]),
        json!([{ "match_all": {} }, "y"]),
        json!(["' or 1=1--", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485"]),
        json!(["NaN", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485"]),
        json!(["+262143-01-01T00:00:00Z", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485"]),
        json!(["1e999", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485"]),
        json!(["\u{0}", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485"]),
        json!(["1", "01a1fcb0-703c-7773-8c9e-d4e5d6bdf485", "1"]),
    ];
    for question in questions {
        let page = ada.asks(question).await?.expect(200)?.value()?;
        let cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
        ada.asks(&format!("{question}&cursor={cursor}")).await?.expect(200)?;
        let refused = ada.asks(&format!("{question}&brand=Other&cursor={cursor}")).await?.expect_problem(400, "malformed")?;
        assert!(refused.body.contains("start again"), "{refused}");

        let good: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&cursor)?)?;
        for (field, _) in good.as_object().into_iter().flatten() {
            for value in [json!(null), json!(7), json!("\u{0}"), json!("x".repeat(9000)), json!({ "a": 1 })] {
                let mut bad = good.clone();
                bad[field] = value;
                let cursor = URL_SAFE_NO_PAD.encode(bad.to_string());
                ada.asks(&format!("{question}&cursor={cursor}")).await?.expect_problem(400, "malformed")?;
            }
        }
        let keys = good.as_object().into_iter().flatten().find(|(_, value)| value.is_array()).map(|(name, _)| name.clone());
        for value in &bad_keys {
            let mut bad = good.clone();
            // Any text is a valid title, so that a cursor with one is valid.
            if question.ends_with("title")
                && value.as_array().is_some_and(|keys| {
                    keys.len() == 2 && keys[1].as_str().is_some_and(|id| id.len() == 36) && keys[0] != "\u{0}"
                })
            {
                continue;
            }
            bad[keys.as_deref().unwrap_or_default()] = value.clone();
            let cursor = URL_SAFE_NO_PAD.encode(bad.to_string());
            let answer = ada.asks(&format!("{question}&cursor={cursor}")).await?;
            answer.expect_problem(400, "malformed").map_err(|error| error.context(format!("keys {value}")))?;
        }
    }
    market.stop().await
}
