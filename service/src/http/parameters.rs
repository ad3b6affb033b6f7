//! The parameters of a request: in its path, and in its query.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The parameters of a path. As axum's, but a value that cannot be read (wrong type, NUL, not UTF-8) is `malformed`.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // A path has visible ASCII only, so that a NUL can only come percent-encoded.
        if parts.uri.path().contains("%00") {
            return Err(Problem::malformed("The path contains a NUL"));
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) if failed.status().is_client_error() => {
                Err(Problem::malformed(failed.body_text()))
            }
            // The route and the handler have different parameters, which is a bug of the program.
            Err(rejection) => Err(Problem::logged(&anyhow::Error::new(rejection))),
        }
    }
}

/// A query without unknown parameters. A parameter that may be repeated is a `Vec`; one that may be missing is an `Option` or has a
/// `serde(default)`. With an empty value, an optional number is missing and a text is empty. `T` must not have `serde(flatten)`, which
/// accepts unknown parameters silently.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

/// A decoded query, for routes whose parameters do not all have fixed names. Take out those without a fixed name, then
/// [`Parameters::read`] the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes a query. Bytes that are not UTF-8, and NUL, which no store takes, are `malformed`.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect::<Result<_, _>>().map(Self)
    }

    /// Takes out the parameters of these names, such as a group that several routes share.
    #[must_use]
    pub fn take_named(&mut self, names: &[&str]) -> Self {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|(name, _)| names.contains(&name.as_str()));
        self.0 = kept;
        Self(taken)
    }

    /// Takes out the parameters whose names begin with `prefix`, in their order, and removes the prefix.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = kept;
        taken.into_iter().map(|(name, value)| (name[prefix.len()..].to_owned(), value)).collect()
    }

    /// Reads the parameters as `T`. One that is unknown, wrongly repeated, or of the wrong type is `malformed`, with its name.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let text: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish();
        let reader = serde_html_form::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
        let tracked = serde_path_to_error::Deserializer::new(reader, &mut track);
        let value = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));

        let value = value.map_err(|error| {
            let path = track.path().to_string();
            if path == "." {
                Problem::malformed(format!("The query: {error}"))
            } else {
                Problem::malformed(format!("The parameter {path}: {error}"))
            }
        })?;
        match unknown.as_slice() {
            [] => Ok(value),
            [only] => Err(Problem::malformed(format!("The parameter {only} is not known here"))),
            several => Err(Problem::malformed(format!("The parameters {} are not known here", several.join(", ")))),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn pair(pair: &str) -> Result<(String, String), Problem> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = decode(name).ok_or_else(|| Problem::malformed("The name of a parameter is not UTF-8, or contains a NUL"))?;
    let value =
        decode(value).ok_or_else(|| Problem::malformed(format!("The parameter {name} is not UTF-8, or contains a NUL")))?;
    Ok((name, value))
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)?;
    (!decoded.contains('\0')).then_some(decoded)
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Parameters::from_request_parts(parts, state).await?.read().map(Self)
    }
}
