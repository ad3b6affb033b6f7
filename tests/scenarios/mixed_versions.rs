//! A projector of this version reads what a newer program writes: nothing is lost, and nothing becomes a dead letter.

use std::time::Duration;

use acceptance::stores::StreamMessage;
use acceptance::{Marketplace, a_listing, until, until_eq};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use events::subject::EVENTS_STREAM;
use events::{AggregateKey, EventId, Listing, ListingChange, Meta, NewEvent};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

const PROJECTIONS_OF_LISTINGS: [&str; 3] = ["listing_search", "listing_page", "listing_catalog"];

/// An event as a newer program writes it: with another type, and another body.
fn of_newer_program(listing: &Listing, event_type: &str, rewrite: impl FnOnce(&mut Value)) -> anyhow::Result<StreamMessage> {
    let meta = Meta {
        id: EventId::new(),
        key: AggregateKey::listing(listing.id),
        version: listing.version,
        time: listing.updated_at,
        caused_by: None,
        correlation_id: None,
        trace_parent: None,
    };
    let change = ListingChange::Updated { fields: vec!["title".to_owned()] };
    let recorded = NewEvent { meta, change: &change, state: Some(listing) }.encode()?;
    let mut message = StreamMessage::from_event(&recorded);
    message.headers.insert("ce-type", event_type);
    let mut body: Value = serde_json::from_slice(&recorded.body)?;
    body["change"]["type"] = event_type.into();
    rewrite(&mut body);
    message.body = serde_json::to_vec(&body)?.into();
    Ok(message)
}

/// Whether all projections of listings have this version.
async fn applied(market: &Marketplace, id: Uuid, version: u64) -> anyhow::Result<bool> {
    let document = market.documents(&[id]).await?.get(&id).map(|document| document.version);
    let row = market.catalogue().await?.get(&id).map(|row| row.version);
    let page = market.page(id).await?.map(|page| page.version);
    Ok([document, row, page] == [Some(version); 3])
}

#[tokio::test]
async fn added_fields_and_unknown_changes_are_applied() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let known = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let known = market.shows(known).await?;

    let with_field = Listing { id: Uuid::now_v7().into(), version: 1, ..known.clone() };
    let added = of_newer_program(&with_field, "listing.updated.v1", |body| {
        body["state"]["gift_wrap"] = json!({ "paper": "red" });
        body["change"]["reason"] = json!("gift");
        body["written_by"] = json!("a newer program");
    })?;
    let with_change = Listing { id: Uuid::now_v7().into(), version: 1, ..known };
    let unknown = of_newer_program(&with_change, "listing.gift_wrapped.v1", |body| {
        body["change"] = json!({ "type": "listing.gift_wrapped.v1", "paper": "red" });
    })?;
    market.inject(&added).await?;
    market.inject(&unknown).await?;
    for id in [with_field.id.0, with_change.id.0] {
        until("the event of the newer program to be applied", async || applied(&market, id, 1).await).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn a_newer_major_version_holds_until_a_newer_projector_takes_it() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let known = ada.publishes(a_listing()).await?;
    market.settle().await?;
    let listing = Listing { id: Uuid::now_v7().into(), version: 1, ..market.shows(known).await? };
    let newer = of_newer_program(&listing, "listing.updated.v2", |body| body["state"] = json!({ "headline": "not our format" }))?;
    market.inject(&newer).await?;

    let projector = market.projector()?;
    let held = async |projection: &str| projector.metric("listings_projection_held", &[("projection", projection)]).await;
    for projection in PROJECTIONS_OF_LISTINGS {
        until_eq(format!("{projection} to hold"), Some(1.0), async || held(projection).await).await?;
    }
    // The others are applied meanwhile, and the state that is shown stays.
    for number in 0..5 {
        let other = ada.publishes(a_listing().titled(&format!("Meanwhile {number}"))).await?;
        until("another listing to be applied", async || applied(&market, other.id.0, 1).await).await?;
        let status = projector.status().await?;
        for projection in PROJECTIONS_OF_LISTINGS {
            let line = status["projections"].as_array().into_iter().flatten().find(|line| line["projection"] == projection);
            let why = line.and_then(|line| line["why"].as_str()).unwrap_or_default();
            assert!(line.is_some_and(|line| line["state"] == "holding"), "{status}");
            assert!(why.contains("listing.updated.v2, which a newer program wrote; upgrade this projector"), "{why}");
            assert_eq!(held(projection).await?, Some(1.0), "{projection}");
        }
    }
    let (ready, told) = projector.ops("/ready").await?;
    assert!(ready == 200 && told.contains("upgrade this projector"), "{ready} {told}");
    assert!(projector.said().contains("upgrade this projector"));
    assert_eq!(projector.metric("listings_projection_retries_total", &[]).await?, Some(0.0), "no try is counted");
    assert!(market.dead_letters().await?.is_empty());

    // A newer projector beside this one is handed the event, and acknowledges it.
    let sequence = market.stream().await?.iter().find(|message| message.subject == newer.subject).map(|message| message.sequence);
    for projection in PROJECTIONS_OF_LISTINGS {
        let durable: PullConsumer = market.nats.jetstream().get_consumer_from_stream(projection, EVENTS_STREAM).await?;
        until(format!("the newer {projection} to be handed the event"), async || {
            let mut handed = durable.fetch().max_messages(1).expires(Duration::from_secs(3)).messages().await?;
            let Some(message) = handed.next().await else { return Ok(false) };
            let message = message.map_err(anyhow::Error::from_boxed)?;
            let is_it = Some(message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence) == sequence;
            let answer = if is_it { AckKind::Ack } else { AckKind::Nak(None) };
            message.ack_with(answer).await.map_err(anyhow::Error::from_boxed)?;
            Ok(is_it)
        })
        .await?;
        until_eq(format!("{projection} to go on"), Some(0.0), async || held(projection).await).await?;
    }
    market.stop().await
}
