//! The scenario's own database on the shared Postgres.

use anyhow::Context as _;
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::place::setting;
use crate::servers::run_cleanup;

/// Pool size of the harness itself, per scenario.
const CONNECTIONS: u32 = 4;

/// The database of one scenario. Dropping it drops the database.
#[derive(Debug)]
pub struct Postgres {
    /// URL of the maintenance database, as superuser.
    server: Url,
    database: String,
    /// Connections to the scenario's database as superuser, because the harness reads tables of all roles.
    pub pool: PgPool,
}

impl Postgres {
    pub(crate) async fn create(scenario: &str) -> anyhow::Result<Self> {
        let server: Url = setting("TEST_POSTGRES_URL")?.parse().context("TEST_POSTGRES_URL is not a URL")?;
        let database = scenario.replace('-', "_");
        let mut admin =
            PgConnection::connect(server.as_str()).await.context("the Postgres of TEST_POSTGRES_URL does not answer")?;
        // `create database` fails while another session is connected to the template. Nobody can connect to template0.
        let create = format!("create database {database} owner listings_owner template template0");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await?;
        admin.close().await?;

        let mut url = server.clone();
        url.set_path(&database);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url.as_str()).await?;
        Ok(Self { server, database, pool })
    }

    /// Returns host and port.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.server.host_str().unwrap_or("127.0.0.1"), self.server.port().unwrap_or(5432))
    }

    /// Returns the URL of the scenario's database for a role, at this `host:port`. All roles have the superuser's password.
    pub(crate) fn url(&self, role: &str, address: &str) -> anyhow::Result<String> {
        let mut url = self.server.clone();
        let is_set = url.set_username(role).is_ok() && set_address(&mut url, address)?;
        anyhow::ensure!(is_set, "user name and address in TEST_POSTGRES_URL cannot be replaced");
        url.set_path(&self.database);
        Ok(url.into())
    }

    /// Returns the URL of the scenario's database for a role, bypassing all links.
    pub fn role_url(&self, role: &str) -> anyhow::Result<String> {
        self.url(role, &self.address())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let (server, database) = (self.server.clone(), self.database.clone());
        run_cleanup(async move {
            let mut admin = PgConnection::connect(server.as_str()).await?;
            // `force` ends the connections of the harness, which are still open.
            let drop = format!("drop database if exists {database} with (force)");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await?;
            Ok(())
        });
    }
}

/// Replaces host and port of a URL. Returns whether the URL allows it.
pub(crate) fn set_address(url: &mut Url, address: &str) -> anyhow::Result<bool> {
    let (host, port) = address.rsplit_once(':').context("the address is not host:port")?;
    Ok(url.set_host(Some(host)).is_ok() && url.set_port(Some(port.parse()?)).is_ok())
}
