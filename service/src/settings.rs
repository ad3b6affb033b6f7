//! Settings are read from the environment once and checked at the start. This module has the building blocks of each program's `clap`
//! struct: `--help` lists every variable, a wrong value ends the program with exit code 2 and the variable's name, and a secret is
//! never shown.

mod secret;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Command, CommandFactory, Parser, ValueEnum};

pub use secret::{OptionalSecret, Secret, SecretName};
pub use value::{Switch, duration, filled, index_alias, log_filter};

/// The exit code for wrong usage, as in clap.
const WRONG_USAGE: i32 = 2;

// Headings in `--help`. Each argument names its heading: clap applies a heading on the struct also to the arguments after the struct, and
// uses the struct's documentation as that of the program.
const LOGS: &str = "Logs and traces";
const PORTS: &str = "Ports";
pub(crate) const SECRETS: &str = "Connections and secrets";

/// The settings of logs and traces. Flatten it into the program's settings.
#[derive(Debug, Clone, Args)]
#[command(about = None, long_about = None)]
pub struct LogArgs {
    /// What is logged, such as `info,access=off` or `warn,projector=debug`
    #[arg(long, help_heading = LOGS, env = "RUST_LOG", default_value = value::DEFAULT_FILTER, value_parser = log_filter)]
    pub rust_log: String,

    /// How a log line looks
    #[arg(long, help_heading = LOGS, env = "LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,

    /// Where traces go (OTLP over gRPC, such as `http://127.0.0.1:4317`); empty: nowhere
    #[arg(long, help_heading = LOGS, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = value::collector)]
    pub otel_exporter_otlp_endpoint: Option<String>,

    /// The program's name in traces, if not its own
    #[arg(long, help_heading = LOGS, env = "OTEL_SERVICE_NAME")]
    pub otel_service_name: Option<String>,
}

impl LogArgs {
    #[must_use]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        self.otel_exporter_otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// The address of the operations port; `PORT` is the program's default.
#[derive(Debug, Clone, Args)]
#[command(about = None, long_about = None)]
pub struct OpsArgs<const PORT: u16> {
    /// Where `/health`, `/ready`, `/status` and `/metrics` answer; port 0 takes any
    #[arg(long, help_heading = PORTS, env = "OPS_ADDR", default_value_t = loopback(PORT))]
    pub ops_addr: SocketAddr,
}

/// The address of the public port; `PORT` is the program's default.
#[derive(Debug, Clone, Args)]
#[command(about = None, long_about = None)]
pub struct HttpArgs<const PORT: u16> {
    /// Where the program answers HTTP; port 0 takes any
    #[arg(long, help_heading = PORTS, env = "HTTP_ADDR", default_value_t = loopback(PORT))]
    pub http_addr: SocketAddr,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Reads the settings, or ends the program: with 0 after `--help`, with 2 after an error.
#[must_use]
pub fn parse<T: Parser>() -> T {
    match T::try_parse() {
        Ok(settings) => settings,
        Err(error) => {
            // Nothing can be done if stderr is closed.
            let _ = error.print();
            if let Some(variable) = variable_behind(&error, T::command()) {
                eprintln!("The value may come from the variable {variable}.");
            }
            process::exit(if error.use_stderr() { WRONG_USAGE } else { 0 })
        }
    }
}

/// A variable of a program, as `--help` shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable {
    pub name: String,
    /// As it is written in the environment; empty if there is none.
    pub default: String,
    pub help: String,
}

/// All variables of a program and its subcommands, by name, for documentation and the tests that compare it.
#[must_use]
pub fn variables<T: CommandFactory>() -> Vec<Variable> {
    let mut found = BTreeMap::new();
    collect(&T::command(), &mut found);
    found.into_values().collect()
}

fn collect(command: &Command, found: &mut BTreeMap<String, Variable>) {
    for arg in command.get_arguments() {
        let Some(name) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        found.entry(name.clone()).or_insert_with(|| Variable { name, default: defaults.join(","), help });
    }
    for sub in command.get_subcommands() {
        collect(sub, found);
    }
}

/// The variable of the argument that an error is about. clap names only the flag.
fn variable_behind(error: &clap::Error, mut command: Command) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    // An argument can be formatted only after its command was built.
    command.build();
    named_by(flag, &command)
}

fn named_by(flag: &str, command: &Command) -> Option<String> {
    let own = command.get_arguments().find(|arg| arg.to_string() == flag);
    let own = own.and_then(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned());
    own.or_else(|| command.get_subcommands().find_map(|sub| named_by(flag, sub)))
}

#[cfg(test)]
mod tests;
