//! Separates user and password from a server's URL, because errors show URLs.

use anyhow::Context as _;
use percent_encoding::percent_decode_str;
use url::Url;

/// A server's URL and the credentials for it.
pub struct Server {
    /// Without user and password. It ends in a slash, so that joining a path does not replace its last segment.
    pub url: Url,
    pub credentials: Option<Credentials>,
}

/// Decoded credentials: in a URL, some characters are written as `%40`.
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl Server {
    /// # Errors
    /// If it is not the URL of a server.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(url)?;
        let credentials = (!url.username().is_empty()).then(|| {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            Credentials { user: decoded(url.username()), password: decoded(url.password().unwrap_or_default()) }
        });
        url.set_username("").and_then(|()| url.set_password(None)).ok().context("the URL names no host")?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { url, credentials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_as_they_are_meant_and_stay_out_of_the_url() {
        let Server { url, credentials } = Server::at("https://me%40here:p%40ss%2Fw%C3%B6rd@search:9200/behind/a/proxy").unwrap();
        assert_eq!(url.as_str(), "https://search:9200/behind/a/proxy/");
        let Credentials { user, password } = credentials.unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("me@here", "p@ss/wörd"));

        let Server { url, credentials } = Server::at("http://127.0.0.1:9200").unwrap();
        assert!(url.as_str() == "http://127.0.0.1:9200/" && credentials.is_none());
        assert!(Server::at("search").is_err());
    }
}
