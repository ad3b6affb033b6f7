//! Whoever watches sees it: every series is there from the start, and moves with what it is about.

use acceptance::{Dependency, Marketplace, Name, Program, a_listing, until, until_eq};
use futures_util::future::{try_join, try_join_all};
use serde_json::json;

const LISTINGS: &str = "/api/v1/listings";
const PROJECTIONS: [&str; 4] = ["listing_search", "listing_page", "listing_catalog", "stock_levels"];

async fn value(program: &Program, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    let value = program.metric(name, labels).await?;
    value.ok_or_else(|| anyhow::anyhow!("there is no series {name} with {labels:?}"))
}

#[tokio::test]
async fn the_metrics_of_commands_move() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let commands = market.command_api()?;
    let counters =
        ["listings_created_total", "listings_updated_total", "listings_deleted_total", "listings_relay_published_total"];
    for name in counters.into_iter().chain([
        "listings_http_requests_in_flight",
        "listings_outbox_unpublished",
        "listings_outbox_oldest_age_seconds",
        "listings_relay_set_aside",
        "listings_relay_diverged",
        "listings_relay_repairing",
        "listings_relay_shards_unowned",
    ]) {
        assert_eq!(value(commands, name, &[]).await?, 0.0, "{name}");
    }
    let errors = [("component", "http"), ("error_type", "unavailable")];
    assert_eq!(value(commands, "listings_errors_total", &errors).await?, 0.0);
    let creates = [("operation", "create_listing")];
    assert_eq!(value(commands, "listings_db_query_duration_seconds_count", &creates).await?, 0.0);

    let ada = market.seller("ada")?;
    let lamp = ada.publishes(a_listing()).await?;
    ada.changes(lamp, json!({ "title": "Lamp" })).await?;
    ada.deletes(lamp).await?;
    market.settle().await?;
    for name in &counters[..3] {
        assert_eq!(value(commands, name, &[]).await?, 1.0, "{name}");
    }
    // Three events of the listing, two of its stock.
    until_eq("what was published to be counted", 5.0, async || value(commands, counters[3], &[]).await).await?;
    let route = [("method", "POST"), ("path", LISTINGS)];
    assert_eq!(value(commands, "listings_http_requests_total", &[route[0], route[1], ("status", "201")]).await?, 1.0);
    assert_eq!(value(commands, "listings_http_request_duration_seconds_count", &route).await?, 1.0);
    assert_eq!(value(commands, "listings_db_query_duration_seconds_count", &creates).await?, 1.0);
    assert!(value(commands, "listings_db_connections_open", &[]).await? >= 1.0);
    assert!(value(commands, "listings_db_connections_idle", &[]).await? >= 1.0);

    // A request that waits for Postgres is in flight; one that waits too long is counted as an error.
    let link = market.link(Name::CommandApi, 0, Dependency::Postgres)?;
    link.freeze();
    let draft = a_listing();
    let (waits, watches) = (try_join_all((0..3).map(|_| ada.creates(&draft))), async {
        until_eq("three requests in flight", 3.0, async || value(commands, "listings_http_requests_in_flight", &[]).await)
            .await?;
        let single = [("pool", "single")];
        until_eq("no connection idle", 0.0, async || value(commands, "listings_db_connections_idle", &single).await).await?;
        until("a third connection", async || Ok(value(commands, "listings_db_connections_open", &single).await? >= 3.0)).await?;
        link.mend().await
    });
    let (answers, ()) = try_join(waits, watches).await?;
    for answer in answers {
        answer.expect(201)?;
    }
    until("connections to be idle again", async || Ok(value(commands, "listings_db_connections_idle", &[]).await? >= 2.0))
        .await?;
    until_eq("no request in flight", 0.0, async || value(commands, "listings_http_requests_in_flight", &[]).await).await?;
    link.cut().await?;
    // What was under way when the wire broke may have been done: 504. What comes later was not: 503.
    until("commands to be refused", async || {
        let answer = ada.creates(&a_listing()).await?;
        Ok(answer.status != 504 && answer.expect_problem(503, "unavailable").is_ok())
    })
    .await?;
    assert!(value(commands, "listings_errors_total", &errors).await? >= 1.0);
    link.mend().await?;
    until("Postgres to be back", async || Ok(ada.creates(&a_listing()).await?.status == 201)).await?;
    market.settle().await?;

    // Who cannot publish owns no shard, and its outbox grows older.
    let waiting = ["listings_outbox_unpublished", "listings_outbox_oldest_age_seconds", "listings_relay_shards_unowned"];
    let link = market.link(Name::CommandApi, 0, Dependency::Nats)?;
    link.cut().await?;
    ada.publishes(a_listing()).await?;
    for name in waiting {
        until(format!("{name} to rise"), async || Ok(value(commands, name, &[]).await? > 0.0)).await?;
    }
    link.mend().await?;
    for name in waiting {
        until_eq(format!("{name} to fall"), 0.0, async || value(commands, name, &[]).await).await?;
    }
    market.stop().await
}

#[tokio::test]
async fn the_metrics_of_projections_move() -> anyhow::Result<()> {
    let market = Marketplace::builder().linked().start().await?;
    let projector = market.projector()?;
    for projection in PROJECTIONS {
        let of = [("projection", projection)];
        for name in ["lag_events", "lag_seconds", "retries_total", "held", "apply_duration_seconds_count"] {
            assert_eq!(value(projector, &format!("listings_projection_{name}"), &of).await?, 0.0, "{name} of {projection}");
        }
        assert_eq!(value(projector, "listings_dlq_messages", &of).await?, 0.0, "{projection}");
        assert_eq!(value(projector, "listings_projection_events_total", &[of[0], ("outcome", "applied")]).await?, 0.0);
    }

    // The first write of one row fails as a lost race does; the next try succeeds.
    let fails_once = "
        create sequence public.tries;
        grant usage on sequence public.tries to public;
        create function public.lose_a_race() returns trigger language plpgsql as $$
        begin
          if nextval('public.tries') = 1 then raise exception 'a lost race' using errcode = '40001'; end if;
          return new;
        end $$;
        create trigger lose_a_race before insert on projection.listings for each row execute function public.lose_a_race()";
    sqlx::raw_sql(fails_once).execute(&market.postgres.pool).await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing()).await?;
    market.settle().await?;
    for projection in PROJECTIONS {
        let of = [("projection", projection)];
        assert!(value(projector, "listings_projection_apply_duration_seconds_count", &of).await? >= 1.0, "{projection}");
        assert!(
            value(projector, "listings_projection_events_total", &[of[0], ("outcome", "applied")]).await? >= 1.0,
            "{projection}"
        );
    }
    assert!(value(projector, "listings_projection_retries_total", &[("projection", "listing_catalog")]).await? >= 1.0);

    // An unavailable store shows as a held projection that lags behind, in events and in seconds.
    let search = [("projection", "listing_search")];
    let link = market.link(Name::Projector, 0, Dependency::OpenSearch)?;
    link.cut().await?;
    ada.publishes(a_listing()).await?;
    for name in ["held", "lag_events", "lag_seconds"] {
        let name = format!("listings_projection_{name}");
        until(&name, async || Ok(value(projector, &name, &search).await? > 0.0)).await?;
    }
    link.mend().await?;
    for name in ["held", "lag_events", "lag_seconds"] {
        let name = format!("listings_projection_{name}");
        until_eq(&name, 0.0, async || value(projector, &name, &search).await).await?;
    }
    market.stop().await
}
