//! Secret settings, which are never shown: from the variable `NAME`, or from the file that `NAME_FILE` names.

use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::PathBuf;
use url::Url;

use clap::builder::{StringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use secrecy::{ExposeSecret as _, SecretString};

use super::SECRETS;

/// The name of a secret and its properties. Declare it with [`secret!`](crate::secret).
pub trait SecretName: 'static {
    const NAME: &'static str;
    const FLAG: &'static str;
    const FILE_NAME: &'static str;
    const FILE_FLAG: &'static str;
    const HELP: &'static str;
    const FILE_HELP: &'static str;
    /// The schemes that are allowed, if the secret is a URL.
    const SCHEMES: &'static [&'static str];
    /// Whether several URLs are allowed, separated by commas.
    const SEVERAL: bool;
}

/// Declares the name of a [`Secret`]; flatten `Secret<DatabaseUrl>` into the program's settings.
///
/// ```
/// service::secret!(DatabaseUrl: "DATABASE_URL", "database-url", ["postgres", "postgresql"], "Postgres, as the program's own role");
/// service::secret!(NatsUrl: "NATS_URL", "nats-url", several ["nats", "tls"], "The broker; several with commas");
/// ```
#[macro_export]
macro_rules! secret {
    ($visibility:vis $type:ident: $name:literal, $flag:literal, [$($scheme:literal),*], $help:literal) => {
        $crate::secret!(@ $visibility $type: $name, $flag, [$($scheme),*], false, $help);
    };
    ($visibility:vis $type:ident: $name:literal, $flag:literal, several [$($scheme:literal),*], $help:literal) => {
        $crate::secret!(@ $visibility $type: $name, $flag, [$($scheme),*], true, $help);
    };
    (@ $visibility:vis $type:ident: $name:literal, $flag:literal, [$($scheme:literal),*], $several:literal, $help:literal) => {
        #[derive(Debug, Clone, Copy)]
        $visibility enum $type {}

        impl $crate::settings::SecretName for $type {
            const NAME: &'static str = $name;
            const FLAG: &'static str = $flag;
            const FILE_NAME: &'static str = concat!($name, "_FILE");
            const FILE_FLAG: &'static str = concat!($flag, "-file");
            const HELP: &'static str = $help;
            const FILE_HELP: &'static str = concat!("A file that holds ", $name);
            const SCHEMES: &'static [&'static str] = &[$($scheme),*];
            const SEVERAL: bool = $several;
        }
    };
}

/// A required secret.
pub struct Secret<N> {
    value: SecretString,
    name: PhantomData<N>,
}

impl<N: SecretName> Secret<N> {
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// The URLs, if several are allowed.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        urls::<N>(self.expose()).map(str::to_owned).collect()
    }

    /// The text for logs: a URL without user, password and parameters; `…` for a secret that is not a URL.
    #[must_use]
    pub fn shown(&self) -> String {
        if N::SCHEMES.is_empty() {
            return "…".to_owned();
        }
        let urls = urls::<N>(self.expose()).filter_map(|url| Url::parse(url).ok());
        let shown: Vec<String> = urls.map(|url| format!("{}://{}{}", url.scheme(), place(&url), url.path())).collect();
        shown.join(",")
    }
}

fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl<N> Clone for Secret<N> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), name: PhantomData }
    }
}

impl<N: SecretName> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", N::NAME)
    }
}

/// A secret that may be missing.
#[derive(Debug, Clone)]
pub struct OptionalSecret<N: SecretName>(pub Option<Secret<N>>);

fn augment<N: SecretName>(command: Command) -> Command {
    command
        .arg(
            Arg::new(N::NAME)
                .long(N::FLAG)
                .env(N::NAME)
                .hide_env_values(true)
                .value_name(N::NAME)
                .value_parser(StringValueParser::new().map(SecretString::from))
                .help_heading(SECRETS)
                .help(N::HELP),
        )
        .arg(
            Arg::new(N::FILE_NAME)
                .long(N::FILE_FLAG)
                .env(N::FILE_NAME)
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .help_heading(SECRETS)
                .help(N::FILE_HELP),
        )
}

/// Reads a secret. An empty variable counts as not set. No error shows a value.
fn read<N: SecretName>(matches: &ArgMatches) -> Result<Option<Secret<N>>, clap::Error> {
    let named = matches.get_one::<SecretString>(N::NAME).filter(|value| !value.expose_secret().is_empty());
    let file = matches.get_one::<PathBuf>(N::FILE_NAME).filter(|path| !path.as_os_str().is_empty());
    let value = match (named, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(wrong(ErrorKind::ArgumentConflict, format!("both {} and {} are set", N::NAME, N::FILE_NAME)));
        }
        (Some(value), None) => value.clone(),
        (None, Some(path)) => {
            let text = fs::read_to_string(path).map_err(|error| {
                wrong(ErrorKind::ValueValidation, format!("{}: cannot read {}: {error}", N::FILE_NAME, path.display()))
            })?;
            // Editors and `echo` end a file with a newline that is not part of the secret.
            SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    check::<N>(value.expose_secret()).map_err(|why| wrong(ErrorKind::ValueValidation, format!("{} {why}", N::NAME)))?;
    Ok(Some(Secret { value, name: PhantomData }))
}

fn check<N: SecretName>(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("is empty".to_owned());
    }
    if N::SCHEMES.is_empty() {
        return Ok(());
    }
    for url in urls::<N>(value) {
        let url = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        if !N::SCHEMES.contains(&url.scheme()) {
            return Err(format!("must begin with {}://", N::SCHEMES.join(":// or ")));
        }
    }
    Ok(())
}

/// Splits at commas if several URLs are allowed. Otherwise a comma is part of the URL.
fn urls<N: SecretName>(value: &str) -> impl Iterator<Item = &str> {
    value.split(|character| N::SEVERAL && character == ',').map(str::trim)
}

fn wrong(kind: ErrorKind, message: String) -> clap::Error {
    clap::Error::raw(kind, message)
}

impl<N: SecretName> Args for Secret<N> {
    fn augment_args(command: Command) -> Command {
        augment::<N>(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        augment::<N>(command)
    }
}

impl<N: SecretName> FromArgMatches for Secret<N> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(matches)?
            .ok_or_else(|| wrong(ErrorKind::MissingRequiredArgument, format!("{} (or {}) is not set", N::NAME, N::FILE_NAME)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<N: SecretName> Args for OptionalSecret<N> {
    fn augment_args(command: Command) -> Command {
        augment::<N>(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        augment::<N>(command)
    }
}

impl<N: SecretName> FromArgMatches for OptionalSecret<N> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
