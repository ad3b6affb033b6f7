//! A program whose work pool is full is healthy: its readiness check has a connection of its own.

use acceptance::{Marketplace, Name, a_listing, until};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// More checks than one, so that a lucky moment proves nothing.
const CHECKS: usize = 3;

/// Statements of a program that wait for a lock.
async fn waits_for_a_lock(market: &Marketplace, program: &str) -> anyhow::Result<()> {
    let waiting = "select exists (select from pg_stat_activity
        where datname = current_database() and application_name = $1 and wait_event_type = 'Lock')";
    until(format!("a statement of {program} to wait"), async || {
        Ok(sqlx::query_scalar(waiting).bind(program).fetch_one(&market.postgres.pool).await?)
    })
    .await
}

/// Asks `/ready` a few times; each answer must say that Postgres answers.
async fn stays_ready(market: &Marketplace, name: Name) -> anyhow::Result<()> {
    for _ in 0..CHECKS {
        let (status, body) = market.program(name, 0)?.ops("/ready").await?;
        anyhow::ensure!(status == StatusCode::OK, "{status}: {body}");
        let body: Value = serde_json::from_str(&body)?;
        anyhow::ensure!(body["checks"]["postgres"]["status"] == "passed", "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn commands_that_fill_the_pool_do_not_make_command_api_unready() -> anyhow::Result<()> {
    let market = Marketplace::builder().setting(Name::CommandApi, "DATABASE_MAX_CONNECTIONS", "1").start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;

    let mut locked = market.postgres.pool.begin().await?;
    sqlx::query("select from command.listings where id = $1 for update").bind(listing.id.0).execute(&mut *locked).await?;
    let changes = ada.changes(listing, json!({ "title": "Changed" }));
    let checks = async {
        waits_for_a_lock(&market, "command-api").await?;
        stays_ready(&market, Name::CommandApi).await?;
        locked.rollback().await?;
        anyhow::Ok(())
    };
    let (changed, ()) = futures_util::future::try_join(changes, checks).await?;
    assert_eq!(changed.title, "Changed");
    market.settle().await?;
    market.stop().await
}

#[tokio::test]
async fn questions_that_fill_the_pool_do_not_make_query_api_unready() -> anyhow::Result<()> {
    let market = Marketplace::builder().setting(Name::QueryApi, "DATABASE_MAX_CONNECTIONS", "1").start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;

    let mut locked = market.postgres.pool.begin().await?;
    sqlx::query("lock table projection.listings in access exclusive mode").execute(&mut *locked).await?;
    let asks = ada.asks("/api/v1/listings");
    let checks = async {
        waits_for_a_lock(&market, "query-api").await?;
        stays_ready(&market, Name::QueryApi).await?;
        anyhow::Ok(())
    };
    let (refused, ()) = futures_util::future::try_join(asks, checks).await?;
    refused.expect_problem(503, "unavailable")?;
    locked.rollback().await?;
    ada.asks("/api/v1/listings").await?.expect(200)?;
    market.stop().await
}
