//! The database is restored to an earlier point while the stream is ahead: no event is deleted, and readiness reports it.

use acceptance::{Dependency, Marketplace, Name, a_listing, until, until_eq};
use events::AggregateKey;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

/// What a restore would bring back, in an order that no reference forbids.
const TABLES: [&str; 5] = ["listings", "stock", "events", "outbox", "relay_mark"];

/// With so many listings there is one in most shards.
const LISTINGS: usize = 48;

async fn run(pool: &PgPool, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}

async fn back_up(pool: &PgPool) -> anyhow::Result<()> {
    run(pool, "create schema backup".to_owned()).await?;
    for table in TABLES {
        run(pool, format!("create table backup.{table} as table command.{table}")).await?;
    }
    Ok(())
}

async fn restore(pool: &PgPool) -> anyhow::Result<()> {
    for table in TABLES.iter().rev() {
        run(pool, format!("delete from command.{table}")).await?;
    }
    for table in TABLES {
        run(pool, format!("insert into command.{table} overriding system value select * from backup.{table}")).await?;
    }
    run(pool, "select setval(pg_get_serial_sequence('command.events', 'seq'), (select max(seq) from command.events))".to_owned())
        .await
}

#[tokio::test]
async fn a_restored_database_does_not_overwrite_what_was_published() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let (lost, kept) = (ada.publishes(a_listing()).await?, ada.publishes(a_listing()).await?);
    market.settle().await?;
    back_up(&market.postgres.pool).await?;
    ada.changes(lost, json!({ "title": "Acknowledged, published, and not in the backup" })).await?;
    market.settle().await?;
    let command_api = market.command_api()?;
    command_api.stop().await?;
    restore(&market.postgres.pool).await?;

    command_api.start().await?;
    let diverged = async || Ok(command_api.status().await?["relay"]["diverged"]["count"].clone());
    until_eq("the divergence to be found at the start", json!(1), diverged).await?;
    ada.changes(lost, json!({ "title": "The same version with another content" })).await?;
    ada.changes(kept, json!({ "title": "Not concerned" })).await?;

    until_eq("only the diverged event to be left", 1, async || market.outbox().await).await?;
    until_eq("it to be reported", json!(1), diverged).await?;
    let (_, ready) = command_api.ops("/ready").await?;
    assert!(ready.contains("degraded") && ready.contains("relay_diverged"), "{ready}");

    // It stays known while the marks of all shards move on, the connection breaks, and another process takes over.
    for number in 0..LISTINGS {
        ada.publishes(a_listing().titled(&format!("Not concerned either {number}"))).await?;
    }
    until_eq("only the diverged event to be left", 1, async || market.outbox().await).await?;
    // Nor does it depend on an event that waits.
    sqlx::query("delete from command.outbox").execute(&market.postgres.pool).await?;
    let broker = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    broker.cut().await?;
    until("the relay to notice", async || Ok(command_api.ops("/ready").await?.1.contains("does not answer"))).await?;
    assert_eq!(diverged().await?, json!(1));
    broker.mend().await?;
    until("it to work again", async || {
        let lanes = command_api.status().await?["relay"]["lanes"].to_string();
        Ok(!lanes.contains("waiting") && lanes.contains("working"))
    })
    .await?;
    assert_eq!(diverged().await?, json!(1));
    command_api.stop().await?;
    command_api.start().await?;
    until_eq("it to be found by a new process", json!(1), diverged).await?;

    let concerned = AggregateKey::listing(lost.id);
    let stream = market.stream().await?;
    let last = stream.iter().rfind(|message| message.key() == Some(concerned)).expect("the stream holds the listing");
    assert!(String::from_utf8_lossy(&last.body).contains("not in the backup"));
    assert_eq!(market.versions_in_stream(concerned).await?, [1, 2]);
    assert_eq!(market.versions_in_stream(AggregateKey::listing(kept.id)).await?, [1, 2]);
    market.leave().await
}
