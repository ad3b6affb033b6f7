//! Graceful shutdown under load: every accepted request gets a complete response, and no acknowledged write is lost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use acceptance::{Marketplace, Name, Program, a_listing, until};
use events::AggregateKey;
use futures_util::future::{try_join, try_join_all, try_join3};

/// Concurrent clients, each of which sends one request after the other.
const CLIENTS: usize = 12;
/// Responses before the shutdown starts: enough that all clients are active.
const WARM: usize = 60;

#[tokio::test]
async fn a_graceful_stop_under_load_loses_no_request() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let lamp = ada.publishes(a_listing().titled("Lamp")).await?;
    market.settle().await?;

    // Like a load balancer: requests are sent only while the program is ready. A connection may be refused after that, because
    // no request was sent on it; a request on an accepted connection must be answered.
    let routed = [AtomicBool::new(true), AtomicBool::new(true)];
    let refused = |routed: &AtomicBool, failure: &anyhow::Error| {
        let failure = failure.downcast_ref::<reqwest::Error>();
        !routed.load(Ordering::SeqCst) && failure.is_some_and(reqwest::Error::is_connect)
    };
    let created = Mutex::new(Vec::new());
    let read = Mutex::new(0);
    let writes = async |client: usize| {
        while routed[0].load(Ordering::SeqCst) {
            let draft = a_listing().titled(&format!("From client {client}"));
            match ada.creates(&draft).await {
                Ok(answer) => created.lock().unwrap().push(answer.expect(201)?.json::<events::Listing>()?.id),
                Err(failure) if refused(&routed[0], &failure) => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    };
    let reads = async |_: usize| {
        while routed[1].load(Ordering::SeqCst) {
            match ada.asks(&format!("/api/v1/listings/{}", lamp.id)).await {
                Ok(answer) => drop(answer.expect(200)?),
                Err(failure) if refused(&routed[1], &failure) => break,
                Err(failure) => return Err(failure),
            }
            *read.lock().unwrap() += 1;
        }
        Ok(())
    };
    let ends = async |program: &Program, routed: &AtomicBool| {
        program.ask_to_end()?;
        until("a program that shuts down to report not ready", async || {
            Ok(!program.is_running() || program.ops("/ready").await.is_ok_and(|(status, _)| status != 200))
        })
        .await?;
        routed.store(false, Ordering::SeqCst);
        let status = program.end().await?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    };
    let stops = async {
        until("all clients to be active", async || Ok(created.lock().unwrap().len() >= WARM && *read.lock().unwrap() >= WARM))
            .await?;
        try_join(ends(market.command_api()?, &routed[0]), ends(market.query_api()?, &routed[1])).await
    };
    try_join3(try_join_all((0..CLIENTS).map(writes)), try_join_all((0..CLIENTS).map(reads)), stops).await?;

    // Every create that was answered with 201 is committed, and published at the latest after the restart.
    market.program(Name::CommandApi, 0)?.start().await?;
    market.program(Name::QueryApi, 0)?.start().await?;
    market.settle().await?;
    let stream = market.stream_last_per_subject().await?;
    for listing in created.into_inner()? {
        let key = AggregateKey::listing(listing);
        assert!(
            stream.iter().any(|message| message.key() == Some(key)),
            "creating {key} was answered with 201, but it is not in the stream"
        );
    }
    market.stop().await
}
