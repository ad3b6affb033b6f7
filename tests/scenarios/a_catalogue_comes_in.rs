//! Imports and batches: an import can be repeated, and each line of a batch succeeds or fails on its own.

use std::process::Output;

use acceptance::{Marketplace, Person, a_listing, user};
use reqwest::Method;
use serde_json::{Value, json};

const BATCH: &str = "/api/v1/listings/batch";
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/sample/listings.ndjson");

/// Sends a batch, and returns the result of each line.
async fn send_batch(person: &Person<'_>, lines: &[Value]) -> anyhow::Result<Vec<Value>> {
    let body = lines.iter().fold(String::new(), |body, line| body + &line.to_string() + "\n");
    let answer = person.command(Method::POST, BATCH)?.body("application/x-ndjson", body).send().await?.expect(200)?;
    Ok(answer.body.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().filter_map(|answer| answer["status"].as_u64()).collect()
}

fn output_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn an_import_can_be_repeated_and_reports_what_it_could_not_take() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let commands = market.command_api()?;
    let url = commands.url("")?;
    let token = market.keys.token(user("importer"), &["admin"])?;
    let import = async |more: &[&str]| commands.tool(&[&["import", "--url", &url, "--token", &token], more].concat()).await;
    let lines = std::fs::read_to_string(SAMPLE)?.lines().count();

    let first = import(&[SAMPLE]).await?;
    assert!(first.status.success(), "{}", output_text(&first));
    assert!(output_text(&first).contains(&format!("{lines} created, 0 were there")), "{}", output_text(&first));
    let again = import(&[SAMPLE]).await?;
    assert!(output_text(&again).contains(&format!("0 created, {lines} were there")), "{}", output_text(&again));
    market.settle().await?;
    let found = market.visitor()?.asks("/api/v1/listings/search?limit=1").await?.expect(200)?.value()?;
    let total = found["total"]["value"].as_u64().unwrap_or_default();
    assert!(total > 0 && total <= lines as u64, "{found}");

    let folder = std::env::temp_dir().join(format!("listings-import-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder)?;
    let (input, rejects) = (folder.join("in.ndjson"), folder.join("rejects.ndjson"));
    std::fs::write(&input, format!("{}\n{{\"title\":\"\"}}\n{{nonsense\n", a_listing().with("external_id", "good").0))?;
    let (input, rejected) = (input.display().to_string(), rejects.display().to_string());
    let partly = import(&[&input, "--rejects", &rejected]).await?;
    assert_eq!(partly.status.code(), Some(1), "{}", output_text(&partly));
    let mut reasons: Vec<(u64, u64)> = Vec::new();
    for line in std::fs::read_to_string(&rejects)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        reasons.push((line["line"].as_u64().unwrap_or_default(), line["status"].as_u64().unwrap_or_default()));
    }
    reasons.sort_unstable();
    assert_eq!(reasons, [(2, 422), (3, 400)]);
    std::fs::remove_dir_all(folder)?;
    market.stop().await
}

#[tokio::test]
async fn each_line_of_a_batch_stands_alone() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let (ada, bob) = (market.seller("ada")?, market.seller("bob")?);
    let line = |name: &str, title: &str| a_listing().titled(title).with("external_id", name).with_stock(2).0;

    let foreign = a_listing().with("seller_id", bob.id.to_string()).0;
    let results =
        send_batch(&ada, &[line("a", "One"), json!({ "title": 5 }), line("a", "Two"), line("a", "Two"), foreign]).await?;
    assert_eq!(statuses(&results), [201, 422, 200, 200, 403]);
    assert_eq!(results.iter().map(|answer| answer["index"].as_u64()).collect::<Vec<_>>(), (0..5).map(Some).collect::<Vec<_>>());
    assert_eq!(results[1]["problem"]["type"], "/problems/invalid");
    assert_eq!((&results[2]["version"], &results[3]["version"]), (&json!(2), &json!(2)), "the same content is no change");

    // External ids are unique per seller, and an admin may write for any seller.
    assert_eq!(statuses(&send_batch(&bob, &[line("a", "Bob's")]).await?), [201]);
    let admin = market.admin("root")?;
    let mut for_bob = line("a", "Bob's, corrected");
    for_bob["seller_id"] = json!(bob.id);
    assert_eq!(statuses(&send_batch(&admin, &[for_bob]).await?), [200]);

    // A line that replaces a listing changes neither its status nor its stock, and keeps its variant.
    let mut again = line("a", "Three");
    again["status"] = json!("draft");
    again["stock"] = json!(99);
    let results = send_batch(&ada, &[again]).await?;
    let path = format!("/api/v1/listings/{}", results[0]["id"].as_str().unwrap_or_default());
    market.settle().await?;
    let listing: events::Listing = ada.asks(&path).await?.expect(200)?.json()?;
    assert_eq!((listing.title.as_str(), listing.status, listing.available), ("Three", events::listing::Status::Active, true));
    let stock = ada.asks(&format!("/api/v1/variants/{}/stock", listing.variants[0].id)).await?.expect(200)?.value()?;
    assert_eq!(stock["on_hand"], 2);

    let too_many = "{}\n".repeat(1001);
    ada.command(Method::POST, BATCH)?.body("application/x-ndjson", too_many).send().await?.expect_problem(413, "too-large")?;
    ada.command(Method::POST, BATCH)?.json(&json!([])).send().await?.expect_problem(415, "unsupported-media-type")?;
    market.stop().await
}
