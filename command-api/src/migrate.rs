//! Applies the migrations as the owner of the database, or shows which ones are applied.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Serialize;
use service::postgres;
use service::program::print_line;
use sqlx::migrate::{Migrate as _, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tracing::info;

use crate::cli::{Migrate, MigrateWhat, Output};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

pub async fn migrate(settings: &Migrate) -> anyhow::Result<()> {
    let (variable, url) = settings.url()?;
    let options = postgres::options(variable, url)?;
    let mut database = options.connect().await.context("cannot connect to the database")?;
    match settings.what {
        None => apply(&mut database).await?,
        Some(MigrateWhat::Status { output }) => show(&status(&mut database).await?, output)?,
    }
    database.close().await?;
    Ok(())
}

/// Applies all pending migrations. Several processes may do so at once: sqlx takes a lock, and the later ones find nothing to do.
async fn apply(database: &mut PgConnection) -> anyhow::Result<()> {
    MIGRATIONS.run(database).await.context("a migration failed; those before it are applied")?;
    let count = MIGRATIONS.iter().count();
    info!(migrations = count, "The database has all {count} migrations");
    Ok(())
}

#[derive(Debug, Serialize)]
struct MigrationStatus {
    version: i64,
    description: String,
    state: MigrationState,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum MigrationState {
    Applied,
    Pending,
    /// Applied, but the file has changed since.
    Changed,
}

async fn status(database: &mut PgConnection) -> anyhow::Result<Vec<MigrationStatus>> {
    let table = MIGRATIONS.table_name.clone();
    let table_exists: bool =
        sqlx::query_scalar("select to_regclass($1) is not null").bind(&*table).fetch_one(&mut *database).await?;
    let applied = if table_exists { database.list_applied_migrations(&table).await? } else { Vec::new() };
    let applied: BTreeMap<i64, _> = applied.into_iter().map(|migration| (migration.version, migration.checksum)).collect();
    let state = |migration: &sqlx::migrate::Migration| match applied.get(&migration.version) {
        None => MigrationState::Pending,
        Some(checksum) if *checksum == migration.checksum => MigrationState::Applied,
        Some(_) => MigrationState::Changed,
    };
    let all = MIGRATIONS.iter().map(|migration| MigrationStatus {
        version: migration.version,
        description: migration.description.to_string(),
        state: state(migration),
    });
    Ok(all.collect())
}

fn show(all: &[MigrationStatus], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print_line(serde_json::to_string_pretty(all)?)?,
        Output::Text => {
            for status in all {
                print_line(format_args!("{:04}  {:<30} {:?}", status.version, status.description, status.state))?;
            }
        }
    }
    Ok(())
}
