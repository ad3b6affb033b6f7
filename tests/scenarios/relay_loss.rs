//! The broker loses what it had acknowledged, and gets it back from the journal.

use acceptance::listings::Published;
use acceptance::{Marketplace, Name, Person, a_listing, until_eq};
use events::AggregateKey;
use serde_json::json;
use uuid::Uuid;

const STREAM: &str = "LISTINGS_EVENTS";

/// The last digit of an id says in which shard its events are: with so many listings there are several in most.
const LISTINGS: usize = 48;

async fn publishes_many(seller: &Person<'_>, title: &str) -> anyhow::Result<Vec<Published>> {
    let mut listings = Vec::new();
    for number in 0..LISTINGS {
        listings.push(seller.publishes(a_listing().titled(&format!("{title} {number}"))).await?);
    }
    Ok(listings)
}

/// Waits until the stream holds exactly these versions of each.
async fn hold_versions(market: &Marketplace, listings: &[Published], versions: &[u64]) -> anyhow::Result<()> {
    for listing in listings {
        let key = AggregateKey::listing(listing.id);
        until_eq(format_args!("all versions of {key}"), versions.to_vec(), async || market.versions_in_stream(key).await).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_stream_is_repaired_from_the_journal() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let mut listings = Vec::new();
    for number in 0..20 {
        let listing = ada.publishes(a_listing().titled(&format!("Bicycle {number}")).with_stock(1)).await?;
        ada.changes(listing, json!({ "brand": "Rog" })).await?;
        listings.push(listing);
    }
    market.settle().await?;

    // A projector outlives its consumers, but this is not its story.
    market.projector()?.stop().await?;
    market.nats.jetstream().delete_stream(STREAM).await?;
    for listing in &listings {
        ada.changes(*listing, json!({ "title": "Changed while there was no stream" })).await?;
    }
    let provisioned = market.projector()?.tool(&["provision"]).await?;
    assert!(provisioned.status.success(), "{provisioned:?}");
    market.projector()?.start().await?;
    ada.changes(listings[0], json!({ "title": "Changed after it came back" })).await?;

    for (index, listing) in listings.iter().enumerate() {
        let expected: Vec<u64> = if index == 0 { vec![1, 2, 3, 4] } else { vec![1, 2, 3] };
        let key = AggregateKey::listing(listing.id);
        until_eq(format_args!("all versions of {key}"), expected, async || market.versions_in_stream(key).await).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn a_purged_stream_is_repaired_however_much_is_published_at_once() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let mut still = publishes_many(&ada, "Bicycle").await?;
    let changed = still.split_off(LISTINGS / 2);
    market.settle().await?;

    market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
    // In every shard: events of new listings, and of old ones that leave a gap.
    for listing in &changed {
        ada.changes(*listing, json!({ "brand": "Rog" })).await?;
    }
    let new = publishes_many(&ada, "New bicycle").await?;
    hold_versions(&market, &changed, &[1, 2]).await?;
    hold_versions(&market, &still, &[1]).await?;
    hold_versions(&market, &new, &[1]).await?;
    market.stop().await
}

#[tokio::test]
async fn a_purge_is_not_forgotten_when_command_api_dies_right_after_it() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let command_api = market.command_api()?;
    let still = publishes_many(&ada, "Bicycle").await?;
    market.settle().await?;

    // Each time with more published in between.
    for changes in [0, 1, 4] {
        let changed = ada.publishes(a_listing().titled("Changes")).await?;
        market.settle().await?;
        market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
        for change in 0..changes {
            ada.changes(changed, json!({ "title": format!("Changed {change} times") })).await?;
            ada.publishes(a_listing().titled("New bicycle")).await?;
        }
        command_api.kill()?;
        command_api.start().await?;
        hold_versions(&market, &still, &[1]).await?;
        hold_versions(&market, &[changed], &(1..=1 + changes).collect::<Vec<u64>>()).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn a_stream_can_be_purged_again_within_the_duplicate_window() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listings = publishes_many(&ada, "Bicycle").await?;
    market.settle().await?;
    for _ in 0..3 {
        market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
        hold_versions(&market, &listings, &[1]).await?;
    }
    let diverged_or_aside = market.command_api()?.status().await?["relay"].clone();
    assert_eq!((&diverged_or_aside["diverged"]["count"], &diverged_or_aside["set_aside"]["count"]), (&json!(0), &json!(0)));
    market.stop().await
}

#[tokio::test]
async fn one_deleted_message_is_published_again_whoever_published_it() -> anyhow::Result<()> {
    let market = Marketplace::builder().with(Name::CommandApi, 2).start().await?;
    let ada = market.seller("ada")?;
    let mut listings = publishes_many(&ada, "Bicycle").await?;
    for round in 0..6 {
        // Nobody but who publishes this has looked since it came: to the others, as many messages are there as before.
        listings.push(ada.publishes(a_listing().titled("New bicycle")).await?);
        until_eq("everything published", 0, async || market.outbox().await).await?;
        let key = AggregateKey::listing(listings[round].id);
        let message = market.stream().await?.into_iter().find(|message| message.key() == Some(key)).expect("it was published");
        market.nats.jetstream().get_stream(STREAM).await?.delete_message(message.sequence).await?;
        hold_versions(&market, &listings, &[1]).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn an_older_copy_of_the_store_gets_what_it_lacks() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let old = publishes_many(&ada, "Bicycle").await?;
    market.settle().await?;
    market.nats.kill()?;
    market.nats.copy_store()?;
    market.nats.start_again().await?;

    for listing in &old {
        ada.changes(*listing, json!({ "brand": "Rog" })).await?;
    }
    let new = publishes_many(&ada, "Newer than the copy").await?;
    market.settle().await?;
    market.nats.kill()?;
    market.nats.put_copy_back()?;
    market.nats.start_again().await?;

    // Among what is lost, sequences are given again.
    ada.changes(old[0], json!({ "title": "Changed after the copy was put back" })).await?;
    hold_versions(&market, &old[..1], &[1, 2, 3]).await?;
    hold_versions(&market, &old[1..], &[1, 2]).await?;
    hold_versions(&market, &new, &[1]).await?;
    market.stop().await
}

/// Inserts an event of an aggregate that this program does not know, as a newer program would commit it; returns its subject.
async fn commit_event_of_newer_program(market: &Marketplace, id: Uuid) -> anyhow::Result<String> {
    let insert = "with journal as (
            insert into command.events (aggregate, aggregate_id, version, event_id, type, headers, body)
            values ('book', $1, 1, $2, 'book.opened.v1', jsonb_build_object('ce-id', $2::text, 'Aggregate-Version', '1'), '{}')
            returning seq, aggregate_id)
        insert into command.outbox (shard, seq) select (get_byte(uuid_send(aggregate_id), 15) % 16)::smallint, seq from journal";
    sqlx::query(insert).bind(id).bind(Uuid::now_v7()).execute(&market.postgres.pool).await?;
    Ok(format!("listings.events.book.{id}"))
}

async fn stored_times(market: &Marketplace, subject: &str) -> anyhow::Result<usize> {
    Ok(market.stream().await?.iter().filter(|message| message.subject == subject).count())
}

#[tokio::test]
async fn an_event_of_an_aggregate_that_only_a_newer_program_knows_is_published_and_repaired() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let listings = publishes_many(&ada, "Bicycle").await?;
    market.settle().await?;

    // Its shard goes on: a listing in the same shard is published after it.
    let same_shard = listings.first().map(|listing| listing.id.0).expect("there are listings");
    let subject = commit_event_of_newer_program(&market, same_shard).await?;
    until_eq("the event to be published", 0, async || market.outbox().await).await?;
    assert_eq!(stored_times(&market, &subject).await?, 1);
    ada.changes(listings[0], json!({ "brand": "Rog" })).await?;
    hold_versions(&market, &listings[..1], &[1, 2]).await?;

    // A watermark may name such an aggregate too, and the event is repaired like any other.
    let command_api = market.command_api()?;
    command_api.stop().await?;
    let subjects = "update command.relay_mark set subject = 'listings.events.book.' || event_id";
    sqlx::query(subjects).execute(&market.postgres.pool).await?;
    command_api.start().await?;
    let after = ada.publishes(a_listing().titled("After the program came back")).await?;
    hold_versions(&market, &[after], &[1]).await?;
    market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
    hold_versions(&market, &listings[1..], &[1]).await?;
    until_eq("the event to be in the stream again", 1, async || stored_times(&market, &subject).await).await?;
    assert_eq!(market.dead_letters().await?.len(), 0);
    market.leave().await
}

#[tokio::test]
async fn a_repair_ends_even_if_nothing_of_a_shard_can_be_published() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    publishes_many(&ada, "Bicycle").await?;
    market.settle().await?;
    let pool = &market.postgres.pool;
    // No subject can name these.
    sqlx::query("update command.events set aggregate = 'a book' where aggregate = 'listing'").execute(pool).await?;
    sqlx::query("update command.events set aggregate = 'a page' where aggregate = 'stock'").execute(pool).await?;
    market.nats.jetstream().get_stream(STREAM).await?.purge().await?;
    let events = i64::try_from(2 * LISTINGS)?;
    until_eq("all of them to be in the outbox again", events, async || market.outbox().await).await?;
    let invalid = async || {
        let select = "select count(*) from command.relay_mark where stream_created = 'epoch'";
        Ok(sqlx::query_scalar::<_, i64>(select).fetch_one(pool).await?)
    };
    until_eq("no watermark to be invalid", 0, invalid).await?;
    let after = ada.publishes(a_listing().titled("After the repair")).await?;
    hold_versions(&market, &[after], &[1]).await?;
    market.leave().await
}
