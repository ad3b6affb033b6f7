//! Optimistic concurrency with `If-Match`: of several changes to the same version, exactly one succeeds.

use acceptance::{Marketplace, Name, a_listing};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn of_ten_changes_to_the_same_version_one_wins() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).start().await?;
    let ada = market.seller("ada")?;
    let elsewhere = ada.through(market.program(Name::CommandApi, 1)?);
    let bicycle = ada.publishes(a_listing().with_stock(1)).await?;
    let path = format!("/api/v1/listings/{}", bicycle.id);
    let body = a_listing().0;

    for version in 1..=8_u64 {
        let etag = format!("\"{version}\"");
        let change = async |nth: usize| {
            let person = if nth.is_multiple_of(2) { &ada } else { &elsewhere };
            let patch = json!({ "title": format!("Change {nth} of version {version}") });
            person.command(Method::PATCH, &path)?.if_match(&etag).json(&patch).send().await
        };
        let mut won = Vec::new();
        for answer in try_join_all((0..10).map(change)).await? {
            if answer.status == 200 {
                won.push(answer.version()?);
            } else {
                answer.expect_problem(412, "version-mismatch")?;
            }
        }
        assert_eq!(won, [version + 1]);
    }

    // Every route refuses an outdated, a missing and a malformed version.
    let stock = format!("/api/v1/variants/{}/stock", bicycle.variant);
    let routes = [
        (Method::PATCH, path.clone(), Some(json!({ "title": "x" }))),
        (Method::PUT, path.clone(), Some(body)),
        (Method::DELETE, path.clone(), None),
        (Method::POST, format!("{path}/pause"), None),
        (Method::POST, format!("{path}/archive"), None),
        (Method::PUT, stock.clone(), Some(json!({ "on_hand": 3 }))),
    ];
    for (method, path, body) in routes {
        let request = || -> anyhow::Result<_> { Ok(ada.command(method.clone(), &path)?.optional_json(body.as_ref())) };
        request()?.if_match("\"99\"").send().await?.expect_problem(412, "version-mismatch")?;
        // Strong comparison: a weak tag never matches.
        request()?.if_match("W/\"9\"").send().await?.expect_problem(412, "version-mismatch")?;
        request()?.if_match("nine").send().await?.expect_problem(400, "malformed")?;
        if path != stock {
            request()?.send().await?.expect_problem(428, "precondition-required")?;
        }
    }
    // `If-Match` may list several versions; one of them must match.
    let patch = json!({ "title": "One of several" });
    let answer = ada.command(Method::PATCH, &path)?.if_match("\"3\", \"9\"").json(&patch).send().await?.expect(200)?;
    assert_eq!(answer.version()?, 10);
    // Content equal to the stored one makes no new version.
    let same = ada.command(Method::PATCH, &path)?.if_match("\"10\"").json(&patch).send().await?.expect(200)?;
    assert_eq!(same.version()?, 10);
    let counted = ada.command(Method::PUT, &stock)?.if_match("\"1\"").json(&json!({ "on_hand": 3 })).send().await?.expect(200)?;
    assert_eq!(counted.version()?, 2);
    ada.command(Method::DELETE, &path)?.if_match("\"10\"").send().await?.expect(204)?;
    market.stop().await
}
