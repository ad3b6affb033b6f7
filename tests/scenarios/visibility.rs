//! Who sees what: every role, every status and visibility that a seller can bring about, every route.

use std::collections::BTreeMap;

use acceptance::{Marketplace, Person, a_listing};
use events::ListingId;
use serde_json::Value;

/// Who may see a listing, by route. `all` is everyone, `own` its seller and admins, `none` nobody.
#[derive(Debug, Clone, Copy)]
struct Shown {
    by_id: &'static str,
    in_list: &'static str,
    in_sellers_list: &'static str,
    by_search: &'static str,
}

/// How a listing came to be what it is: its status at first, the verb afterwards.
const STATUSES: [(&str, &str, Option<&str>); 5] = [
    ("draft", "draft", None),
    ("active", "active", None),
    ("paused", "active", Some("pause")),
    ("archived", "active", Some("archive")),
    ("deleted", "active", Some("delete")),
];

fn shown(status: &str, visibility: &str) -> Shown {
    match (status, visibility) {
        ("deleted", _) => Shown { by_id: "none", in_list: "none", in_sellers_list: "none", by_search: "none" },
        ("active", "public") => Shown { by_id: "all", in_list: "all", in_sellers_list: "all", by_search: "all" },
        ("active", "unlisted") => Shown { by_id: "all", in_list: "none", in_sellers_list: "own", by_search: "none" },
        _ => Shown { by_id: "own", in_list: "none", in_sellers_list: "own", by_search: "none" },
    }
}

fn sees(role: &str, who: &str) -> bool {
    match who {
        "all" => true,
        "own" => matches!(role, "owner" | "admin"),
        _ => false,
    }
}

async fn listed(person: &Person<'_>, path: &str) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(page) = next.take() {
        let answer = person.asks(&page).await?.expect(200)?.value()?;
        ids.extend(answer["items"].as_array().into_iter().flatten().filter_map(|item| Some(item["id"].as_str()?.to_owned())));
        next = answer["next_cursor"].as_str().map(|cursor| format!("{path}&cursor={cursor}"));
    }
    Ok(ids)
}

#[tokio::test]
async fn everyone_sees_what_is_theirs_to_see() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let owner = market.seller("ada")?;
    let people = [
        ("anonymous", market.visitor()?),
        ("other", market.seller("bob")?),
        ("owner", owner.clone()),
        ("admin", market.admin("root")?),
    ];

    let mut listings = BTreeMap::new();
    for (status, first, verb) in STATUSES {
        for visibility in ["public", "unlisted", "private"] {
            let draft = a_listing().with_stock(1).with("visibility", visibility).with("status", first);
            let listing = owner.publishes(draft).await?;
            match verb {
                Some("delete") => {
                    owner.deletes(listing).await?;
                }
                Some(verb) => {
                    owner.puts(listing, verb).await?.expect(200)?;
                }
                None => {}
            }
            listings.insert((status, visibility), listing);
        }
    }
    market.settle().await?;

    for (role, person) in &people {
        let everyones = listed(person, "/api/v1/listings?limit=2").await?;
        let sellers = listed(person, &format!("/api/v1/listings?limit=2&seller_id={}", owner.id)).await?;
        let found = listed(person, "/api/v1/listings/search?q=bicycle&limit=2").await?;
        for ((status, visibility), listing) in &listings {
            let case = format!("{role} and a {status} {visibility} listing");
            let expected = shown(status, visibility);
            let by_id = person.asks(&format!("/api/v1/listings/{}", listing.id)).await?;
            let stock = person.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?;
            for answer in [by_id, stock] {
                if sees(role, expected.by_id) {
                    let answer = answer.expect(200)?;
                    let caches = if expected.by_id == "all" { "public, no-cache" } else { "private, no-store" };
                    assert_eq!(answer.header("cache-control"), Some(caches), "{case}: {}", answer.asked);
                    assert_eq!(answer.header("vary"), Some("authorization"), "{case}: {}", answer.asked);
                } else {
                    answer.expect_problem(404, "not-found")?;
                }
            }
            let id = listing.id.to_string();
            for (route, ids, who) in [
                ("the list", &everyones, expected.in_list),
                ("the seller's list", &sellers, expected.in_sellers_list),
                ("the search", &found, expected.by_search),
            ] {
                assert_eq!(ids.iter().filter(|found| **found == id).count(), usize::from(sees(role, who)), "{case} in {route}");
            }
        }
        let drafts = person.asks(&format!("/api/v1/listings?status=draft&seller_id={}", owner.id)).await?.expect(200)?.value()?;
        let count = drafts["items"].as_array().map_or(0, Vec::len);
        assert_eq!(count, if sees(role, "own") { 3 } else { 0 }, "drafts that {role} sees");
        let hidden = person.asks("/api/v1/listings/search?status=draft").await?.expect(200)?.value()?;
        assert_eq!(hidden["items"], Value::Array(Vec::new()), "a search shows {role} drafts");
    }
    let nobody = owner.with_token(Some("not.a.token"));
    for path in ["/api/v1/listings", "/api/v1/listings/search", &format!("/api/v1/listings/{}", ListingId::new())] {
        nobody.asks(path).await?.expect_problem(401, "unauthenticated")?;
    }
    market.stop().await
}
