//! Visibility of listings: every role, on every route, for every status and visibility that a seller can set.

use std::collections::BTreeMap;

use acceptance::{Marketplace, Person, a_listing};
use events::ListingId;
use serde_json::Value;

/// Who may see a listing on each route: `all` is everyone, `own` its seller and admins, `none` nobody.
#[derive(Debug, Clone, Copy)]
struct VisibleTo {
    by_id: &'static str,
    in_list: &'static str,
    in_sellers_list: &'static str,
    by_search: &'static str,
}

/// Each final status with the initial status and the verb that lead to it.
const STATUSES: [(&str, &str, Option<&str>); 5] = [
    ("draft", "draft", None),
    ("active", "active", None),
    ("paused", "active", Some("pause")),
    ("archived", "active", Some("archive")),
    ("deleted", "active", Some("delete")),
];

fn visible_to(status: &str, visibility: &str) -> VisibleTo {
    match (status, visibility) {
        ("deleted", _) => VisibleTo { by_id: "none", in_list: "none", in_sellers_list: "none", by_search: "none" },
        ("active", "public") => VisibleTo { by_id: "all", in_list: "all", in_sellers_list: "all", by_search: "all" },
        ("active", "unlisted") => VisibleTo { by_id: "all", in_list: "none", in_sellers_list: "own", by_search: "none" },
        _ => VisibleTo { by_id: "own", in_list: "none", in_sellers_list: "own", by_search: "none" },
    }
}

fn sees(role: &str, who: &str) -> bool {
    match who {
        "all" => true,
        "own" => matches!(role, "owner" | "admin"),
        _ => false,
    }
}

/// Returns the ids on all pages of a list or a search.
async fn listed(person: &Person<'_>, path: &str) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(page) = next.take() {
        let answer = person.asks(&page).await?.expect(200)?;
        ids.extend(answer.item_ids()?);
        next = answer.value()?["next_cursor"].as_str().map(|cursor| format!("{path}&cursor={cursor}"));
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
            let expected = visible_to(status, visibility);
            let by_id = person.asks(&format!("/api/v1/listings/{}", listing.id)).await?;
            let stock = person.asks(&format!("/api/v1/variants/{}/stock", listing.variant)).await?;
            for answer in [by_id, stock] {
                if sees(role, expected.by_id) {
                    let answer = answer.expect(200)?;
                    let caches = if expected.by_id == "all" { "public, no-cache" } else { "private, no-store" };
                    assert_eq!(answer.header("cache-control"), Some(caches), "{case}: {}", answer.request);
                    assert_eq!(answer.header("vary"), Some("authorization"), "{case}: {}", answer.request);
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
        assert_eq!(hidden["items"], Value::Array(Vec::new()), "the search shows drafts to {role}");
    }
    let nobody = owner.with_token(Some("not.a.token"));
    for path in ["/api/v1/listings", "/api/v1/listings/search", &format!("/api/v1/listings/{}", ListingId::new())] {
        nobody.asks(path).await?.expect_problem(401, "unauthenticated")?;
    }
    market.stop().await
}
