//! Two generations of a projection are fed side by side from one stream, and each owns everything that it has.

use acceptance::{Marketplace, a_listing, until, until_eq};
use events::subject::EVENTS_STREAM;
use serde_json::Value;
use tokio::try_join;
use views::generations::{SERVING_KEY, ServingGenerations};

/// The projections of listings and their stock, which these scenarios write.
const PROJECTIONS: [&str; 4] = ["listing_catalog", "listing_page", "listing_search", "stock_levels"];

/// Makes a second generation of every projection, as a rebuild does.
async fn add_second_generations(market: &Marketplace) -> anyhow::Result<()> {
    let insert = "insert into projection.generations (projection, generation, state, durable)
                  select projection, 2, 'building', projection || '-2' from projection.generations";
    sqlx::query(insert).execute(&market.postgres.pool).await?;
    let provisioned = market.projector()?.tool(&["provision"]).await?;
    anyhow::ensure!(provisioned.status.success(), "{}", String::from_utf8_lossy(&provisioned.stderr));
    Ok(())
}

/// Lets every projection's second generation serve, and the first one be fed on.
async fn switch(market: &Marketplace) -> anyhow::Result<()> {
    let mut transaction = market.postgres.pool.begin().await?;
    for (state, generation) in [("fed", 1), ("serving", 2)] {
        let update = "update projection.generations set state = $1 where generation = $2";
        sqlx::query(update).bind(state).bind(generation).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// The generations of [`PROJECTIONS`] that the projector shows, as projection, generation and role.
async fn shown(market: &Marketplace) -> anyhow::Result<Vec<(String, i64, String)>> {
    let status = market.projector()?.status().await?;
    let of = |line: &Value| {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        (text("projection"), line["generation"].as_i64().unwrap_or_default(), text("role"))
    };
    let lines = status["projections"].as_array().into_iter().flatten().map(of);
    let mut shown: Vec<_> = lines.filter(|(projection, ..)| PROJECTIONS.contains(&projection.as_str())).collect();
    shown.sort();
    Ok(shown)
}

fn each(roles: &[(i64, &str)]) -> Vec<(String, i64, String)> {
    let of = |projection: &str| {
        roles.iter().map(|(generation, role)| (projection.to_owned(), *generation, (*role).to_owned())).collect::<Vec<_>>()
    };
    PROJECTIONS.iter().flat_map(|projection| of(projection)).collect()
}

#[tokio::test]
async fn two_generations_of_every_projection_end_with_the_same_content() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    let early = ada.publishes(a_listing().titled("From before").with_stock(3)).await?;
    let gone = ada.publishes(a_listing().titled("Gone by then").with_stock(1)).await?;
    ada.deletes(gone).await?;
    market.settle().await?;

    // The second generations come while others write.
    let writes = async {
        for number in 0..40 {
            let listing = ada.publishes(a_listing().titled(&format!("Number {number}")).with_stock(number)).await?;
            ada.counts(early.variant, number).await?;
            if number % 5 == 0 {
                ada.deletes(listing).await?;
            }
        }
        anyhow::Ok(())
    };
    try_join!(writes, add_second_generations(&market))?;
    until_eq("the projector to feed both", each(&[(1, "serving"), (2, "building")]), async || shown(&market).await).await?;
    market.settle().await?;
    market.check_agreement().await?;

    let projector = market.projector()?;
    for projection in PROJECTIONS {
        for generation in ["1", "2"] {
            let of = [("projection", projection), ("generation", generation)];
            let applied = [of[0], of[1], ("outcome", "applied")];
            assert!(projector.metric("listings_projection_events_total", &applied).await? > Some(20.0), "{of:?}");
            for name in ["lag_events", "lag_seconds", "held"] {
                until_eq(format!("{name} of {of:?}"), Some(0.0), async || {
                    projector.metric(&format!("listings_projection_{name}"), &of).await
                })
                .await?;
            }
        }
        let (_, ready) = projector.ops("/ready").await?;
        for check in [projection.to_owned(), format!("{projection}-2")] {
            assert_eq!(serde_json::from_str::<Value>(&ready)?["checks"][&check]["status"], "passed", "{check} in {ready}");
        }
    }
    let status = projector.tool(&["status", "--output", "json"]).await?;
    let lines: Vec<Value> = serde_json::from_slice(&status.stdout)?;
    for projection in PROJECTIONS {
        let settled = |line: &Value| line["projection"] == projection && line["generation"] == 2 && line["lag_events"] == 0;
        assert_eq!(lines.iter().filter(|line| settled(line)).count(), 1, "{projection}");
    }

    // What the second generation has is what the journal says.
    switch(&market).await?;
    until_eq("the projector to see the switch", each(&[(1, "fed"), (2, "serving")]), async || shown(&market).await).await?;
    assert!(market.page(early.id.0).await?.is_some(), "the second generation has pages of its own");
    market.check_agreement().await?;
    until_eq("the pointers in Redis to follow", PROJECTIONS.map(|_| Some(2)), async || {
        let mut redis = market.redis.connection().await?;
        let pointers: String = redis::cmd("GET").arg(SERVING_KEY).query_async(&mut redis).await?;
        let pointers = ServingGenerations::from_json(pointers.as_bytes()).unwrap_or_default();
        Ok(PROJECTIONS.map(|projection| pointers.of(projection)))
    })
    .await?;
    market.stop().await
}

#[tokio::test]
async fn retiring_one_generation_stops_only_that_one() -> anyhow::Result<()> {
    let market = Marketplace::start().await?;
    let ada = market.seller("ada")?;
    ada.publishes(a_listing().with_stock(3)).await?;
    add_second_generations(&market).await?;
    until_eq("the projector to feed both", each(&[(1, "serving"), (2, "building")]), async || shown(&market).await).await?;
    market.settle().await?;
    switch(&market).await?;
    sqlx::query("update projection.generations set state = 'retired' where generation = 1")
        .execute(&market.postgres.pool)
        .await?;
    until_eq("the projector to end the first ones", each(&[(2, "serving")]), async || shown(&market).await).await?;
    let first = [("projection", "listing_catalog"), ("generation", "1")];
    assert_eq!(market.projector()?.metric("listings_projection_held", &first).await?, None, "a retired generation has no series");
    for projection in PROJECTIONS {
        market.nats.jetstream().get_stream(EVENTS_STREAM).await?.delete_consumer(projection).await?;
    }

    let after = ada.publishes(a_listing().titled("After it was retired").with_stock(7)).await?;
    market.settle().await?;
    assert!(market.catalogue().await?.contains_key(&after.id.0));
    assert!(market.page(after.id.0).await?.is_some());
    let in_first = "select count(*) from projection.listings where generation = 1 and id = $1";
    let in_first: i64 = sqlx::query_scalar(in_first).bind(after.id.0).fetch_one(&market.postgres.pool).await?;
    assert_eq!(in_first, 0, "nothing is written to the retired one");
    until("the projector to be ready", async || Ok(market.projector()?.ops("/ready").await?.0 == 200)).await?;
    market.stop().await
}
