//! A whole marketplace: servers, programs, the wires between them, and the people who use it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Client;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::try_join;

use crate::keys::Keys;
use crate::link::Link;
use crate::people::{Person, user};
use crate::place::Place;
use crate::program::{Environment, Name, Program, tool};
use crate::servers::{Nats, OpenSearch, Postgres, Redis};

/// Each scenario is five processes; more of them at once only wait for each other.
static SCENARIOS_AT_ONCE: Semaphore = Semaphore::const_new(4);

/// Longer than any route's own deadline: whoever gets no answer by then gets none at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// A server that programs reach through a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    Postgres,
    Nats,
    Redis,
    OpenSearch,
}

impl Dependency {
    const ALL: [Self; 4] = [Self::Postgres, Self::Nats, Self::Redis, Self::OpenSearch];
}

/// Everything that a scenario has. Dropped without [`Marketplace::stop`], it shows the ends of the logs and keeps its folder.
#[derive(Debug)]
pub struct Marketplace {
    // In the order in which they have to go.
    programs: BTreeMap<(Name, usize), Program>,
    links: BTreeMap<(Name, usize, Dependency), Link>,
    pub redis: Redis,
    pub nats: Nats,
    pub opensearch: OpenSearch,
    pub postgres: Postgres,
    pub keys: Keys,
    http: Client,
    place: Place,
    ended_well: bool,
    _permit: SemaphorePermit<'static>,
}

/// A variable of a program's environment: of every process of it, or of one.
#[derive(Debug, Clone)]
struct Setting {
    name: Name,
    nth: Option<usize>,
    variable: String,
    value: String,
}

/// What a scenario wants different from the usual.
#[derive(Debug, Clone)]
pub struct Builder {
    count: BTreeMap<Name, usize>,
    later: Vec<Name>,
    linked: bool,
    settings: Vec<Setting>,
}

impl Builder {
    /// This many processes of a program.
    #[must_use]
    pub fn with(mut self, name: Name, count: usize) -> Self {
        self.count.insert(name, count);
        self
    }

    /// Puts a link between every program and every server.
    #[must_use]
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Leaves it to the scenario to start this program.
    #[must_use]
    pub fn later(mut self, name: Name) -> Self {
        self.later.push(name);
        self
    }

    /// A variable of a program's environment.
    #[must_use]
    pub fn setting(self, name: Name, variable: &str, value: impl fmt::Display) -> Self {
        self.set(name, None, variable, &value)
    }

    /// A variable of one process's environment, counted from 0.
    #[must_use]
    pub fn setting_of(self, name: Name, nth: usize, variable: &str, value: impl fmt::Display) -> Self {
        self.set(name, Some(nth), variable, &value)
    }

    fn set(mut self, name: Name, nth: Option<usize>, variable: &str, value: &dyn fmt::Display) -> Self {
        self.settings.push(Setting { name, nth, variable: variable.to_owned(), value: value.to_string() });
        self
    }

    /// Environment of the `nth` process; `None` is for one-shot tools.
    fn environment(
        &self,
        name: Name,
        nth: Option<usize>,
        market: &Marketplace,
        address: &dyn Fn(Dependency) -> String,
    ) -> anyhow::Result<Environment> {
        let mut environment = market.environment(name, address)?;
        let own = self.settings.iter().filter(|of| of.name == name && (of.nth.is_none() || of.nth == nth));
        environment.extend(own.map(|of| (of.variable.clone(), of.value.clone())));
        Ok(environment)
    }

    /// Everything that makes a marketplace, on the heap: the futures of all scenarios hold it.
    pub async fn start(self) -> anyhow::Result<Marketplace> {
        Box::pin(self.open()).await
    }

    async fn open(self) -> anyhow::Result<Marketplace> {
        let permit = SCENARIOS_AT_ONCE.acquire().await?;
        let place = Place::new()?;
        let (postgres, opensearch, nats, redis) = try_join!(
            Postgres::create(&place.name),
            OpenSearch::connect(&place.name),
            Nats::start(&place),
            Redis::start(&place),
        )?;
        let keys = Keys::make(&place.folder)?;
        let http = Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        let (programs, links) = (BTreeMap::new(), BTreeMap::new());
        let mut market = Marketplace {
            programs,
            links,
            redis,
            nats,
            opensearch,
            postgres,
            keys,
            http,
            place,
            ended_well: false,
            _permit: permit,
        };
        market.prepare(&self).await?;
        for (&name, &count) in &self.count {
            for nth in 0..count {
                market.add(name, nth, &self)?;
            }
        }
        let starting =
            market.programs.iter().filter(|((name, _), _)| !self.later.contains(name)).map(|(_, program)| program.start());
        futures_util::future::try_join_all(starting).await?;
        Ok(market)
    }
}

impl Marketplace {
    /// One process of each program, all of them ready.
    pub async fn start() -> anyhow::Result<Self> {
        Box::pin(Self::builder().start()).await
    }

    #[must_use]
    pub fn builder() -> Builder {
        let count = [(Name::CommandApi, 1), (Name::QueryApi, 1), (Name::Projector, 1)].into();
        Builder { count, later: Vec::new(), linked: false, settings: Vec::new() }
    }

    /// Schema, streams, consumers and index: what an operator does before the first start.
    async fn prepare(&self, builder: &Builder) -> anyhow::Result<()> {
        let mut migrate = builder.environment(Name::CommandApi, None, self, &|dependency| self.address(dependency))?;
        let owner = self.postgres.url("listings_owner", &self.postgres.address())?;
        migrate.push(("MIGRATE_DATABASE_URL".to_owned(), owner));
        tool(Name::CommandApi, &migrate, &["migrate"]).await?;
        let provision = builder.environment(Name::Projector, None, self, &|dependency| self.address(dependency))?;
        tool(Name::Projector, &provision, &["provision"]).await
    }

    fn add(&mut self, name: Name, nth: usize, builder: &Builder) -> anyhow::Result<()> {
        if builder.linked {
            for dependency in Dependency::ALL {
                self.links.insert((name, nth, dependency), Link::to(self.address(dependency))?);
            }
        }
        let address = |dependency| match self.links.get(&(name, nth, dependency)) {
            Some(link) => link.address(),
            None => self.address(dependency),
        };
        let environment = builder.environment(name, Some(nth), self, &address)?;
        self.programs.insert((name, nth), Program::new(name, nth, &self.place.folder, environment)?);
        Ok(())
    }

    fn address(&self, dependency: Dependency) -> String {
        match dependency {
            Dependency::Postgres => self.postgres.address(),
            Dependency::Nats => self.nats.address(),
            Dependency::Redis => self.redis.address(),
            Dependency::OpenSearch => self.opensearch.address(),
        }
    }

    fn environment(&self, name: Name, address: &dyn Fn(Dependency) -> String) -> anyhow::Result<Environment> {
        let postgres = |role| self.postgres.url(role, &address(Dependency::Postgres));
        let mut environment = vec![
            ("RUST_LOG", "info".to_owned()),
            ("OPS_ADDR", "127.0.0.1:0".to_owned()),
            ("NATS_URL", format!("nats://{}", address(Dependency::Nats))),
        ];
        let stores = [
            ("REDIS_URL", format!("redis://{}", address(Dependency::Redis))),
            ("OPENSEARCH_URL", self.opensearch.url(&address(Dependency::OpenSearch))?),
            ("OPENSEARCH_INDEX", self.opensearch.alias.clone()),
        ];
        let public = [("HTTP_ADDR", "127.0.0.1:0".to_owned()), ("JWT_JWKS", self.keys.jwks_file.display().to_string())];
        match name {
            Name::CommandApi => {
                environment.push(("DATABASE_URL", postgres("listings_command")?));
                environment.push(("JWT_PRIVATE_KEY_FILE", self.keys.private_key_file.display().to_string()));
                environment.extend(public);
            }
            Name::QueryApi => {
                environment.push(("DATABASE_URL", postgres("listings_query")?));
                environment.extend(stores);
                environment.extend(public);
            }
            Name::Projector => {
                environment.push(("DATABASE_URL", postgres("listings_projector")?));
                environment.extend(stores);
            }
        }
        Ok(environment.into_iter().map(|(variable, value)| (variable.to_owned(), value)).collect())
    }

    /// A process of a program, counted from 0.
    pub fn program(&self, name: Name, nth: usize) -> anyhow::Result<&Program> {
        self.programs.get(&(name, nth)).with_context(|| format!("the scenario has no {name} number {nth}"))
    }

    /// All processes.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values()
    }

    pub fn command_api(&self) -> anyhow::Result<&Program> {
        self.program(Name::CommandApi, 0)
    }

    pub fn query_api(&self) -> anyhow::Result<&Program> {
        self.program(Name::QueryApi, 0)
    }

    pub fn projector(&self) -> anyhow::Result<&Program> {
        self.program(Name::Projector, 0)
    }

    /// The wire from a process to a server; the scenario must have been built `linked()`.
    pub fn link(&self, name: Name, nth: usize, dependency: Dependency) -> anyhow::Result<&Link> {
        let link = self.links.get(&(name, nth, dependency));
        link.with_context(|| format!("no link from {name} {nth} to {dependency:?}; was the scenario built linked()?"))
    }

    /// The wires from all processes to a server.
    pub fn links(&self, dependency: Dependency) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |((.., to), _)| *to == dependency).map(|(_, link)| link)
    }

    /// Somebody who sells.
    pub fn seller(&self, name: &str) -> anyhow::Result<Person<'_>> {
        self.somebody(name, &["seller"])
    }

    /// Somebody who may do everything.
    pub fn admin(&self, name: &str) -> anyhow::Result<Person<'_>> {
        self.somebody(name, &["admin"])
    }

    /// Somebody with these roles.
    pub fn somebody(&self, name: &str, roles: &[&str]) -> anyhow::Result<Person<'_>> {
        let id = user(name);
        Ok(Person { id, token: Some(self.keys.token(id, roles)?), ..self.visitor()? })
    }

    /// Somebody without a token.
    pub fn visitor(&self) -> anyhow::Result<Person<'_>> {
        let (commands, queries) = (self.command_api()?, self.query_api()?);
        Ok(Person { id: user("visitor"), token: None, commands, queries, http: self.http.clone() })
    }

    /// Ends the scenario: everything settled, every store agrees, nothing in the dead letters, and all programs end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_with_dead_letters(0).await
    }

    /// As [`Self::stop`], in a scenario that makes this many dead letters on purpose.
    pub async fn stop_with_dead_letters(mut self, expected: usize) -> anyhow::Result<()> {
        self.settle().await?;
        self.check_dead_letters(expected).await?;
        self.check_agreement().await?;
        self.end_programs().await?;
        self.ended_well = true;
        Ok(())
    }

    /// Ends a scenario whose stores disagree on purpose: all programs end well, and nothing else is looked at.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.end_programs().await?;
        self.ended_well = true;
        Ok(())
    }

    async fn end_programs(&self) -> anyhow::Result<()> {
        let running = self.programs().filter(|program| program.is_running()).map(Program::stop);
        futures_util::future::try_join_all(running).await?;
        for program in self.programs() {
            anyhow::ensure!(!program.said().contains("panicked"), "a panic: {}", program.last_words());
        }
        Ok(())
    }
}

impl Marketplace {
    /// Ends everything at once: for measurements, which have looked at the stores themselves.
    pub async fn discard(mut self) -> anyhow::Result<()> {
        let running = self.programs().filter(|program| program.is_running()).map(Program::stop);
        futures_util::future::try_join_all(running).await?;
        self.ended_well = true;
        Ok(())
    }
}

impl Drop for Marketplace {
    fn drop(&mut self) {
        if self.ended_well {
            // A folder that stays is only untidy.
            let _ = self.place.remove();
            return;
        }
        eprintln!("The scenario did not end well; its folder is {}", self.place.folder.display());
        for program in self.programs.values() {
            eprintln!("\n{}", program.last_words());
        }
    }
}
