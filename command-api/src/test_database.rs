//! A migrated database of a test's own, on the server of `TEST_POSTGRES_URL`, which `ops/test` sets.

use std::env;
use std::time::Duration;

use events::EventId;
use prometheus_client::registry::Registry;
use service::clock::Clock;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::command::CommandApp;
use crate::database::CommandDatabase;
use crate::listings::tests::now;
use crate::metrics::CommandMetrics;
use crate::outbox::Wake;

pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct TestDatabase {
    /// As superuser, in the database that always exists.
    server: PgConnectOptions,
    name: String,
    /// As the role of this program, at a fixed time.
    pub app: CommandApp,
}

impl TestDatabase {
    /// Creates the database. `None` without a server; the test is then skipped and says so.
    pub async fn create() -> Option<Self> {
        let Ok(url) = env::var("TEST_POSTGRES_URL") else {
            eprintln!("skipped: TEST_POSTGRES_URL is not set");
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("command_api_{}", EventId::new().0.simple());
        let statement = format!("create database {name} owner listings_owner template template0");
        execute(&server, statement).await;
        let database = server.clone().database(&name);
        // The roles have the superuser's password.
        let mut owner = database.clone().username("listings_owner").connect().await.unwrap();
        sqlx::migrate!("../migrations").run(&mut owner).await.unwrap();
        owner.close().await.unwrap();
        let app = CommandApp {
            database: CommandDatabase::new(&database.username("listings_command"), 2),
            clock: Clock::Fixed(now()),
            wake: Wake::default(),
            metrics: CommandMetrics::register(&mut Registry::default(), &[]),
        };
        Some(Self { server, name, app })
    }

    pub async fn drop(self) {
        self.app.database.close().await;
        execute(&self.server, format!("drop database {} with (force)", self.name)).await;
    }
}

async fn execute(server: &PgConnectOptions, statement: String) {
    let mut admin: PgConnection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
}
