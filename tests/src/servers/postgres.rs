//! A database of the scenario's own on the shared server.

use anyhow::Context as _;
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::place::setting;
use crate::servers::after_the_scenario;

/// Connections of the harness itself, per scenario.
const CONNECTIONS: u32 = 4;

#[derive(Debug)]
pub struct Postgres {
    /// As superuser, in the database that always exists.
    server: Url,
    database: String,
    /// As superuser, in the scenario's database: the harness looks everywhere.
    pub pool: PgPool,
}

impl Postgres {
    pub(crate) async fn create(scenario: &str) -> anyhow::Result<Self> {
        let server: Url = setting("TEST_POSTGRES_URL")?.parse().context("TEST_POSTGRES_URL is no URL")?;
        let database = scenario.replace('-', "_");
        let mut admin =
            PgConnection::connect(server.as_str()).await.context("the Postgres of TEST_POSTGRES_URL does not answer")?;
        // template0: nobody can be connected to it, which would refuse the copy.
        let create = format!("create database {database} owner listings_owner template template0");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await?;
        admin.close().await?;

        let mut url = server.clone();
        url.set_path(&database);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url.as_str()).await?;
        Ok(Self { server, database, pool })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.server.host_str().unwrap_or("127.0.0.1"), self.server.port().unwrap_or(5432))
    }

    /// The address of the scenario's database for one of the roles of the cluster, which all have the superuser's password.
    pub(crate) fn url(&self, role: &str, address: &str) -> anyhow::Result<String> {
        let mut url = self.server.clone();
        let named = url.set_username(role).is_ok() && moved(&mut url, address)?;
        anyhow::ensure!(named, "TEST_POSTGRES_URL cannot carry a user name");
        url.set_path(&self.database);
        Ok(url.into())
    }

    /// The scenario's database for one of the roles.
    pub fn role_url(&self, role: &str) -> anyhow::Result<String> {
        self.url(role, &self.address())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let (server, database) = (self.server.clone(), self.database.clone());
        after_the_scenario(async move {
            let mut admin = PgConnection::connect(server.as_str()).await?;
            // The harness's own connections are still there.
            let drop = format!("drop database if exists {database} with (force)");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await?;
            Ok(())
        });
    }
}

/// Puts another `host:port` into a URL.
pub(crate) fn moved(url: &mut Url, address: &str) -> anyhow::Result<bool> {
    let (host, port) = address.rsplit_once(':').context("an address is host:port")?;
    Ok(url.set_host(Some(host)).is_ok() && url.set_port(Some(port.parse()?)).is_ok())
}
