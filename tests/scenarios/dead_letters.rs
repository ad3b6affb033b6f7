//! An event that can never be applied becomes a dead letter of the projection that failed; all others are applied.

use std::collections::BTreeSet;

use acceptance::stores::StreamMessage;
use acceptance::{Marketplace, Name, a_listing, until, until_eq, until_some};
use async_nats::HeaderMap;
use events::listing::Point;
use events::{AggregateKey, EventId, Listing, ListingChange, Meta, NewEvent};
use uuid::Uuid;

const PROJECTIONS_OF_LISTINGS: [&str; 3] = ["listing_search", "listing_page", "listing_catalog"];

/// An event that no command would make.
fn injected(listing: &Listing) -> anyhow::Result<StreamMessage> {
    let meta = Meta {
        id: EventId::new(),
        key: AggregateKey::listing(listing.id),
        version: listing.version,
        time: listing.updated_at,
        caused_by: None,
        correlation_id: None,
        trace_parent: None,
    };
    let change = ListingChange::Updated { fields: vec!["location".to_owned()] };
    let recorded = NewEvent { meta, change: &change, state: Some(listing) }.encode()?;
    Ok(StreamMessage::from_event(&recorded))
}

/// The listing as it would be under another id, off the map.
fn off_the_map(mut listing: Listing, version: u64) -> Listing {
    listing.version = version;
    if let Some(location) = &mut listing.location {
        location.point = Some(Point { lat: 123.0, lon: 20.0 });
    }
    listing
}

#[tokio::test]
async fn poison_is_put_aside_for_the_one_projection_that_fails_it() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;

    let mut odd = market.shows(sane).await?;
    odd.id = Uuid::now_v7().into();
    let id = odd.id.0;
    market.inject(&injected(&off_the_map(odd.clone(), 1))?).await?;
    let letter = until_some("the dead letter", async || Ok(market.dead_letters().await?.pop())).await?;
    assert_eq!(letter.subject, format!("listings.dlq.listing_search.poison.listing.{id}"));
    for (header, value) in [
        ("Dlq-Projection", "listing_search"),
        ("Dlq-Generation", "1"),
        ("Dlq-Class", "poison"),
        ("Dlq-Attempts", "1"),
        ("ce-type", "listing.updated.v1"),
    ] {
        assert_eq!(letter.header(header), Some(value), "{header}");
    }
    assert!(letter.header("Dlq-Error").is_some_and(|error| error.contains("mapper_parsing_exception")));
    let original = market.stream().await?.into_iter().find(|message| message.key() == Some(AggregateKey::listing(id)));
    let original = original.ok_or_else(|| anyhow::anyhow!("the event is not in the stream"))?;
    assert_eq!(letter.header("Dlq-Stream-Sequence"), Some(original.sequence.to_string().as_str()));
    assert_eq!(letter.body, original.body, "a dead letter has the event's own bytes");

    // The others have it, and those behind it are applied.
    market.settle().await?;
    assert_eq!(market.page(id).await?.map(|page| page.version), Some(1));
    assert_eq!(market.catalogue().await?.get(&id).map(|row| row.version), Some(1));
    assert!(!market.documents(&[id]).await?.contains_key(&id));
    odd.version = 2;
    market.inject(&injected(&odd)?).await?;
    until_eq("the next event of that listing to be searched", Some(2), async || {
        Ok(market.documents(&[id]).await?.get(&id).map(|document| document.version))
    })
    .await?;
    let next = ada.publishes(a_listing().titled("Behind the poison")).await?;
    market.settle().await?;
    assert_eq!(market.finds("behind the poison").await?, [next.id]);

    let projector = market.projector()?;
    until_eq("the letter to be counted", Some(1.0), async || {
        projector.metric("listings_dlq_messages", &[("projection", "listing_search")]).await
    })
    .await?;
    let poison = [("projection", "listing_search"), ("outcome", "poison")];
    assert_eq!(projector.metric("listings_projection_events_total", &poison).await?, Some(1.0));
    let status = projector.tool(&["status", "--output", "json"]).await?;
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&status.stdout)?;
    let letters = |name: &str| lines.iter().find(|line| line["projection"] == name).map(|line| line["dead_letters"].clone());
    assert_eq!(letters("listing_search"), Some(1.into()));
    assert_eq!(letters("listing_page"), Some(0.into()));
    market.stop_with_dead_letters(1).await
}

#[tokio::test]
async fn what_nobody_can_read_is_put_aside_by_everybody() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let unreadable =
        |subject: String| StreamMessage { sequence: 0, subject, headers: HeaderMap::new(), body: "not even JSON".into() };
    market.inject(&unreadable(AggregateKey::listing(Uuid::now_v7()).subject())).await?;
    market.inject(&unreadable("listings.events.stock.no-uuid".to_owned())).await?;

    // Three projections read listings, two read stock.
    until("five dead letters", async || Ok(market.dead_letters().await?.len() == 5)).await?;
    let letters = market.dead_letters().await?;
    for projection in PROJECTIONS_OF_LISTINGS {
        assert!(letters.iter().any(|letter| letter.subject.starts_with(&format!("listings.dlq.{projection}.poison.listing."))));
    }
    ada.publishes(a_listing().with_stock(3)).await?;
    market.stop_with_dead_letters(5).await
}

#[tokio::test]
async fn when_everything_turns_to_poison_the_projection_holds() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let sane = market.shows(sane).await?;
    for _ in 0..40 {
        let odd = Listing { id: Uuid::now_v7().into(), ..sane.clone() };
        market.inject(&injected(&off_the_map(odd, 1))?).await?;
    }
    let held = [("projection", "listing_search")];
    let projector = market.projector()?;
    until_eq("the projection to hold", Some(1.0), async || projector.metric("listings_projection_held", &held).await).await?;
    let letters = market.dead_letters().await?.len();
    assert!(letters < 20, "{letters} events were put aside before it held");
    assert_eq!(projector.ops("/ready").await?.0, 200, "holding is on purpose");
    let status = projector.status().await?;
    let why = status["projections"].as_array().into_iter().flatten().find(|feed| feed["projection"] == "listing_search");
    assert!(why.is_some_and(
        |feed| feed["state"] == "holding" && feed["why"].as_str().is_some_and(|why| why.contains("cannot be applied"))
    ));
    market.discard().await
}

#[tokio::test]
async fn what_fails_again_and_again_is_put_aside_only_when_others_succeed() -> anyhow::Result<()> {
    let quick =
        Marketplace::builder().setting(Name::Projector, "BACKOFF_BASE", "10ms").setting(Name::Projector, "BACKOFF_CAP", "40ms");
    let market = quick.start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;

    // A key of another kind is in the way of this page, and of no other.
    let sane = market.shows(sane).await?;
    let redis = market.redis.connection().await?;
    let obstructed = async || {
        let odd = Listing { id: Uuid::now_v7().into(), version: 1, ..sane.clone() };
        let key = views::listing_page::listing_key(1, odd.id);
        redis::cmd("LPUSH").arg(&key).arg("in the way").exec_async(&mut redis.clone()).await?;
        let letter = format!("listings.dlq.listing_page.exhausted.listing.{}", odd.id);
        market.inject(&injected(&odd)?).await?;
        anyhow::Ok(letter)
    };
    let mut expected = vec![obstructed().await?];

    let (projector, page) = (market.projector()?, [("projection", "listing_page")]);
    until_eq("the projection to hold", Some(1.0), async || projector.metric("listings_projection_held", &page).await).await?;
    assert_eq!(projector.metric("listings_projection_retries_total", &page).await?, Some(9.0), "ten tries");
    assert!(market.dead_letters().await?.is_empty(), "while nothing else succeeds the store may be to blame");

    // Two more of the kind, which the probes have met before anything else comes: the broker hands out what was given back first.
    expected.push(obstructed().await?);
    expected.push(obstructed().await?);
    let last = market.stream().await?.last().map_or(0, |message| message.sequence);
    until("the probes to meet them all", async || {
        let stream = market.nats.jetstream().get_stream("LISTINGS_EVENTS").await?;
        Ok(stream.consumer_info("listing_page").await?.delivered.stream_sequence >= last)
    })
    .await?;
    let next = ada.publishes(a_listing()).await?;
    until("those behind it to be applied", async || Ok(market.page(next.id.0).await?.is_some())).await?;
    // As long as others succeed they are put aside.
    until_eq("the dead letters", expected, async || {
        ada.publishes(a_listing()).await?;
        let mut subjects: Vec<String> = market.dead_letters().await?.into_iter().map(|letter| letter.subject).collect();
        subjects.sort_unstable();
        Ok(subjects)
    })
    .await?;
    let exhausted = [("projection", "listing_page"), ("outcome", "exhausted")];
    assert_eq!(projector.metric("listings_projection_events_total", &exhausted).await?, Some(3.0));
    until_eq("the projection to go on", Some(0.0), async || projector.metric("listings_projection_held", &page).await).await?;
    market.stop_with_dead_letters(3).await
}

#[tokio::test]
async fn poison_gives_way_to_the_version_before_it() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let sane = Listing { id: Uuid::now_v7().into(), version: 1, ..market.shows(sane).await? };
    let id = sane.id.0;
    // Both are there when it begins, and only the newest is tried first.
    market.projector()?.stop().await?;
    market.inject(&injected(&sane)?).await?;
    market.inject(&injected(&off_the_map(sane, 2))?).await?;
    market.projector()?.start().await?;
    until_eq("the version before the poison", Some(1), async || {
        Ok(market.documents(&[id]).await?.get(&id).map(|document| document.version))
    })
    .await?;
    market.settle().await?;
    assert_eq!(market.page(id).await?.map(|page| page.version), Some(2), "who can read it has it");
    let letters = market.dead_letters().await?;
    assert_eq!(letters.iter().map(StreamMessage::version).collect::<Vec<_>>(), [Some(2)]);
    let superseded = [("projection", "listing_page"), ("outcome", "superseded")];
    let superseded = market.projector()?.metric("listings_projection_events_total", &superseded).await?;
    assert_eq!(superseded, Some(1.0), "the two were one write");
    market.stop_with_dead_letters(1).await
}

#[tokio::test]
async fn one_broken_listing_is_no_outage_however_often_it_is_edited() -> anyhow::Result<()> {
    const EDITS: u64 = 25;
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let odd = Listing { id: Uuid::now_v7().into(), ..market.shows(sane).await? };
    for version in 1..=EDITS {
        market.inject(&injected(&off_the_map(odd.clone(), version))?).await?;
    }
    let letters = async || Ok(market.dead_letters().await?.len());
    until_eq("each edit to be put aside", usize::try_from(EDITS)?, letters).await?;
    let next = ada.publishes(a_listing().titled("Behind all of it")).await?;
    market.settle().await?;
    assert_eq!(market.finds("behind all of it").await?, [next.id]);
    market.stop_with_dead_letters(usize::try_from(EDITS)?).await
}

#[tokio::test]
async fn two_events_with_one_id_are_two_letters() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let sane = market.shows(sane).await?;
    let mut subjects = Vec::new();
    for _ in 0..2 {
        let mut event = injected(&off_the_map(Listing { id: Uuid::now_v7().into(), ..sane.clone() }, 1))?;
        event.headers.insert("ce-id", "01990000-0000-7000-8000-00000000dead");
        market.inject(&event).await?;
        subjects.push(event.subject.replace("listings.events.", "listings.dlq.listing_search.poison."));
    }
    let letters = async || {
        let letters: BTreeSet<String> = market.dead_letters().await?.into_iter().map(|letter| letter.subject).collect();
        Ok(subjects.iter().all(|subject| letters.contains(subject)))
    };
    until("a letter for each", letters).await?;
    until_eq("both to be counted", Some(2.0), async || {
        market.projector()?.metric("listings_dlq_messages", &[("projection", "listing_search")]).await
    })
    .await?;
    market.stop_with_dead_letters(2).await
}

#[tokio::test]
async fn a_letter_that_is_there_already_is_known_by_its_id() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let sane = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let odd = Listing { id: Uuid::now_v7().into(), ..market.shows(sane).await? };

    // As after a lost answer: its letter is stored, and so is that of a later version of the same listing.
    let again = injected(&off_the_map(odd, 1))?;
    let subject = format!("listings.dlq.listing_search.poison.{}", again.subject.trim_start_matches("listings.events."));
    let id = again.header("ce-id").unwrap_or_default();
    for id in [format!("listing_search/1/{id}"), "listing_search/1/later".to_owned()] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        market.nats.jetstream().publish_with_headers(subject.clone(), headers, again.body.clone()).await?.await?;
    }
    market.inject(&again).await?;
    let poison = [("projection", "listing_search"), ("outcome", "poison")];
    until_eq("the event to be answered", Some(1.0), async || {
        market.projector()?.metric("listings_projection_events_total", &poison).await
    })
    .await?;
    market.stop_with_dead_letters(2).await
}
