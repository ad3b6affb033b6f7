//! A row of the outbox that can be seen only after later ones were published.

use acceptance::{Dependency, Marketplace, Moment, Name, a_listing, until, until_eq};
use events::AggregateKey;
use serde_json::json;

/// The relay's shards: an aggregate is in that of its id's last byte.
const SHARDS: u8 = 16;

/// Up to where the relay has published this shard.
async fn mark(market: &Marketplace, shard: i16) -> anyhow::Result<i64> {
    let select = "select seq from command.relay_mark where shard = $1";
    Ok(sqlx::query_scalar(select).bind(shard).fetch_one(&market.postgres.pool).await?)
}

#[tokio::test]
async fn an_event_that_commits_after_later_ones_were_published_is_published_too() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let shard = i16::from(listing.id.0.as_bytes()[15] % SHARDS);
    let marked = async || mark(&market, shard).await;

    // It has its place in the journal, which nobody sees yet. No later version makes anyone look for it.
    let commits = market.link(Name::CommandApi, 0, Dependency::Postgres)?.hold(Moment::statement("commit"));
    let late = async { ada.changes(listing, json!({ "title": "The second version" })).await };
    let others = async {
        commits.reached().await?;
        let before = marked().await?;
        until("a later event in the same shard", async || {
            ada.publishes(a_listing()).await?;
            Ok(marked().await? > before)
        })
        .await?;
        until("what can be seen to be published", async || Ok(market.outbox().await? == 0)).await?;
        commits.release();
        anyhow::Ok(())
    };
    futures_util::future::try_join(late, others).await?;
    let key = AggregateKey::listing(listing.id);
    until_eq("the late version to be published", vec![1, 2], async || market.versions_in_stream(key).await).await?;
    market.stop().await
}

#[tokio::test]
async fn a_version_whose_row_comes_late_is_published_before_the_next() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let ada = market.seller("ada")?;
    let listing = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let key = AggregateKey::listing(listing.id);

    let broker = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    broker.cut().await?;
    ada.changes(listing, json!({ "title": "The second version" })).await?;
    let pool = &market.postgres.pool;
    let take_away = "delete from command.outbox o using command.events e
        where e.seq = o.seq and e.aggregate = 'listing' and e.aggregate_id = $1 and e.version = 2 returning o.shard, o.seq";
    let (shard, seq): (i16, i64) = sqlx::query_as(take_away).bind(key.id).fetch_one(pool).await?;
    ada.changes(listing, json!({ "title": "The third version" })).await?;
    broker.mend().await?;
    until("the third version to be published", async || Ok(market.outbox().await? == 0)).await?;
    assert_eq!(market.versions_in_stream(key).await?, [1, 2, 3]);

    // The mark of its shard is far beyond it by then.
    let marked = async || mark(&market, shard).await;
    let before = marked().await?;
    until("a later event in the same shard", async || {
        ada.publishes(a_listing()).await?;
        Ok(marked().await? > before)
    })
    .await?;
    until("everything to be published", async || Ok(market.outbox().await? == 0)).await?;
    let before = marked().await?;

    sqlx::query("insert into command.outbox (shard, seq) values ($1, $2)").bind(shard).bind(seq).execute(pool).await?;
    until("the late row to be settled", async || Ok(market.outbox().await? == 0)).await?;
    assert_eq!(market.versions_in_stream(key).await?, [1, 2, 3]);
    assert!(marked().await? >= before, "what is behind the mark moved it back");
    market.stop().await
}
