//! Commands fail within their deadline while Postgres hangs or refuses writes, and succeed again afterwards.

use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until, until_eq};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_postgres_that_vanishes_without_a_word_is_found_where_it_comes_back() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().setting(Name::CommandApi, "DATABASE_MAX_CONNECTIONS", "2").start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    let postgres = market.link(Name::CommandApi, 0, Dependency::Postgres)?;

    // The existing connections hang forever; new ones work after `strand`.
    postgres.freeze();
    let draft = a_listing().titled("Nobody knows");
    let answers = try_join_all((0..4).map(|_| ada.creates(&draft))).await?;
    for answer in &answers {
        assert!(matches!(answer.status.as_u16(), 503 | 504), "{answer}");
    }
    postgres.strand().await?;

    until("a command to succeed", async || Ok(ada.creates(&a_listing()).await?.status == 201)).await?;
    ada.changes(listing, json!({ "title": "Changed" })).await?;
    market.settle().await?;
    assert_eq!(market.shows(listing).await?.title, "Changed");
    market.stop().await
}

#[tokio::test]
async fn who_hangs_up_while_a_transaction_begins_takes_nobody_elses_command_along() -> anyhow::Result<()> {
    // With a single connection, both commands use the same one.
    let market = Marketplace::builder().linked().setting(Name::CommandApi, "DATABASE_MAX_CONNECTIONS", "1").start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(1)).await?;

    let begins = market.link(Name::CommandApi, 0, Dependency::Postgres)?.hold(Moment::answer("BEGIN"));
    tokio::select! {
        answer = ada.moves(listing.variant, "in", 1) => anyhow::bail!("answered although Postgres had not answered: {answer:?}"),
        reached = begins.reached() => reached?,
    }
    let gone = async || market.command_api()?.metric("listings_http_requests_total", &[("status", "499")]).await;
    until_eq("the program to notice that the client has disconnected", Some(1.0), gone).await?;
    begins.release();

    let other = ada.publishes(a_listing().titled("Said to be there")).await?;
    let there = sqlx::query_scalar("select exists (select from command.listings where id = $1)").bind(other.id.0);
    assert!(there.fetch_one(&market.postgres.pool).await?, "the listing was answered with 201, but is not committed");
    market.settle().await?;
    market.stop().await
}

#[tokio::test]
async fn a_full_disk_takes_no_command_and_says_so() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing().with_stock(1)).await?;
    // The error of a full disk, raised at the commit, where the outcome of a transaction can be unknown.
    let full = "
        create function command.is_full() returns trigger language plpgsql as $$ begin
          raise exception 'could not extend file: No space left on device' using errcode = '53100';
        end $$;
        create constraint trigger full_disk after insert on command.events deferrable initially deferred
            for each row execute function command.is_full()";
    sqlx::raw_sql(full).execute(&market.postgres.pool).await?;

    let (all, one) = ("/api/v1/listings".to_owned(), format!("/api/v1/listings/{}", listing.id));
    let keyed = async || ada.command(Method::POST, &all)?.idempotency_key("again").json(&a_listing().0).send().await;
    let refused = [
        ada.command(Method::POST, &all)?.json(&a_listing().0).send().await?,
        keyed().await?,
        ada.command(Method::PATCH, &one)?.if_match("*").json(&json!({ "title": "New" })).send().await?,
        ada.puts(listing, "pause").await?,
        ada.moves(listing.variant, "in", 1).await?,
        ada.command(Method::DELETE, &one)?.if_match("*").send().await?,
    ];
    for answer in refused {
        let answer = answer.expect_problem(503, "unavailable")?;
        assert!(answer.header("retry-after").is_some(), "{answer}");
    }

    sqlx::raw_sql("drop trigger full_disk on command.events").execute(&market.postgres.pool).await?;
    keyed().await?.expect(201)?;
    market.settle().await?;
    assert_eq!(market.journal().await?.len(), 4, "two listings, each with its stock");
    market.stop().await
}
