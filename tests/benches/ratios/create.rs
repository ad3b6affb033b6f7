//! Creating one listing durably at 64 clients, against pgbench running the same statement with the same values.

use std::time::Duration;

use acceptance::{Marketplace, Name};
use anyhow::Context as _;
use sqlx::types::Json;
use uuid::Uuid;

use crate::load::{self, closed_loop};
use crate::stock_up;
use crate::table::Line;
use crate::{QUIET, ROUNDS};

const CLIENTS: usize = 64;
const TIME: Duration = Duration::from_secs(6);

pub async fn measure() -> anyhow::Result<Line> {
    // The relay would drain what is created, and share the two cores with both sides.
    let market = Marketplace::builder()
        .later(Name::Projector)
        .setting(Name::CommandApi, "RELAY", "off")
        .setting(Name::CommandApi, "RUST_LOG", QUIET)
        .start()
        .await?;
    let token = market.keys.token(acceptance::user("bench"), &["seller"])?;
    let sent = statement_of(&market, stock_up::with(&market, 1)).await?;
    let script = std::env::temp_dir().join(format!("listings-create-{}.sql", std::process::id()));
    std::fs::write(&script, script_of(&market, sent).await?)?;

    let address = market.command_api()?.address()?;
    let request =
        load::post("/api/v1/listings", &format!("authorization: Bearer {token}\r\n"), &stock_up::listing(1).to_string());
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        baseline.push(pgbench(&market, &script).await?);
        let request = request.clone();
        let seen = closed_loop(address, CLIENTS, TIME, move |_, _| request.clone()).await?;
        ours.push(seen.rate());
        let (p50, p99) = (seen.quantile(0.5), seen.quantile(0.99));
        eprintln!("create, round {round}: {:.0}/s, p50 {p50:?}, p99 {p99:?}; pgbench {:.0}/s", ours[round], baseline[round]);
    }
    std::fs::remove_file(&script)?;
    market.discard().await?;
    Ok(Line::ratio("durable single create, 64 clients ÷ pgbench of the same statement", &ours, &baseline, 0.7))
}

/// An event of the journal: aggregate, type, headers, body.
type Row = (String, String, Json<serde_json::Value>, Vec<u8>);

/// The text of the statement with which command-api writes a listing, as Postgres receives it: a trigger stores the statement that
/// fires it.
async fn statement_of(
    market: &Marketplace,
    creation: impl Future<Output = anyhow::Result<Vec<String>>>,
) -> anyhow::Result<String> {
    let pool = &market.postgres.pool;
    sqlx::raw_sql(
        "create table public.sent (statement text not null);
         create function public.note_statement() returns trigger language plpgsql security definer as
           $$ begin insert into public.sent values (current_query()); return null; end $$;
         create trigger note_statement after insert on command.outbox for each statement execute function public.note_statement()",
    )
    .execute(pool)
    .await?;
    creation.await?;
    let sent: Vec<String> = sqlx::query_scalar("select statement from public.sent").fetch_all(pool).await?;
    sqlx::raw_sql("drop trigger note_statement on command.outbox; drop function public.note_statement; drop table public.sent")
        .execute(pool)
        .await?;
    let [statement] = &sent[..] else { anyhow::bail!("one listing was written with {} statements", sent.len()) };
    Ok(statement.clone())
}

/// The statement with the values of the listing that was created, but ids of its own at each run.
async fn script_of(market: &Marketplace, mut statement: String) -> anyhow::Result<String> {
    let pool = &market.postgres.pool;
    let (seller, state): (Uuid, Json<serde_json::Value>) =
        sqlx::query_as("select seller_id, state from command.listings limit 1").fetch_one(pool).await?;
    let events: Vec<Row> =
        sqlx::query_as("select aggregate, type, headers, body from command.events order by seq").fetch_all(pool).await?;
    anyhow::ensure!(events.len() == 2, "one listing made {} events", events.len());

    // Hex, because pgbench takes a colon before a letter or digit for one of its variables.
    let bytes = |bytes: &[u8]| {
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        format!("'\\x{hex}'::bytea")
    };
    let json = |value: &serde_json::Value| format!("convert_from({}, 'utf8')::jsonb", bytes(value.to_string().as_bytes()));
    let id = |of: &str| format!("('{of}0000000-0000-7000-8000-' || lpad(to_hex(:n::bigint), 12, '0'))::uuid");
    let id_of = |aggregate: &str| if aggregate == "listing" { id("1") } else { id("2") };
    let both = |show: &dyn Fn(&Row) -> String| events.iter().map(show).collect::<Vec<_>>().join(", ");
    let values = [
        id("1"),
        "1::bigint".to_owned(),
        format!("'{seller}'::uuid"),
        "null::text".to_owned(),
        "'active'::text".to_owned(),
        json(&state.0),
        "null::timestamptz".to_owned(),
        id("2"),
        id("1"),
        format!("'{seller}'::uuid"),
        "0::bigint".to_owned(),
        "0::bigint".to_owned(),
        "null::bigint".to_owned(),
        "1::bigint".to_owned(),
        "now()".to_owned(),
        "null::timestamptz".to_owned(),
        both(&|(aggregate, ..)| format!("'{aggregate}'::text")),
        both(&|(aggregate, ..)| id_of(aggregate)),
        both(&|_| "1::bigint".to_owned()),
        both(&|_| "gen_random_uuid()".to_owned()),
        both(&|(_, event_type, ..)| format!("'{event_type}'::text")),
        both(&|(_, _, headers, _)| json(&headers.0)),
        both(&|(.., body)| bytes(body)),
    ];
    // From the last one: $1 is also the beginning of $10.
    for (index, value) in values.iter().enumerate().rev() {
        let parameter = format!("${}::", index + 1);
        anyhow::ensure!(statement.contains(&parameter), "the statement has no {parameter}: bring this benchmark up to date");
        statement = statement.replace(&parameter, &format!("array[{value}]::"));
    }
    anyhow::ensure!(!statement.contains('$'), "the statement has more parameters: bring this benchmark up to date");
    Ok(format!("\\set n random(1, 281474976710655)\n{statement};\n"))
}

/// Transactions per second.
async fn pgbench(market: &Marketplace, script: &std::path::Path) -> anyhow::Result<f64> {
    let program = std::env::var("PGBENCH").unwrap_or_else(|_| "pgbench".to_owned());
    let output = tokio::process::Command::new(&program)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .args([format!("--client={CLIENTS}"), format!("--time={}", TIME.as_secs())])
        .arg(format!("--file={}", script.display()))
        .arg(market.postgres.role_url("listings_command")?)
        .output()
        .await
        .with_context(|| format!("{program} did not run; PGBENCH names it"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let tps = told.lines().find_map(|line| line.strip_prefix("tps = ")).and_then(|rest| rest.split(' ').next());
    let tps = tps.with_context(|| format!("pgbench said: {told}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(tps.parse()?)
}
