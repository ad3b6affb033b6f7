//! The scenario's own alias and indices on the shared OpenSearch.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use crate::place::setting;
use crate::servers::postgres::set_address;
use crate::servers::run_cleanup;

/// Timeout of a request. Creating an index on a busy machine takes several seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The shared OpenSearch, and the alias of this scenario. Dropping it removes the scenario's indices and templates.
#[derive(Debug)]
pub struct OpenSearch {
    server: OpenSearchClient,
    /// The alias; it is also the prefix of all index names of the scenario.
    pub alias: String,
}

/// An HTTP client of the shared server.
#[derive(Debug)]
struct OpenSearchClient {
    url: Url,
    http: Client,
}

impl OpenSearchClient {
    fn new(url: Url) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { url, http })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Option<Value>> {
        let mut request = self.http.request(method.clone(), self.url.join(path)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        anyhow::ensure!(status.is_success(), "OpenSearch answered {status} to {method} {path}: {text}");
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Returns the names of all indices that begin with the alias.
    async fn indices(&self, alias: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/_cat/indices/{alias}*?format=json&h=index&expand_wildcards=all");
        let found = self.ask(Method::GET, &path, None).await?;
        let names = found.as_ref().and_then(Value::as_array).into_iter().flatten();
        Ok(names.filter_map(|row| row["index"].as_str()).map(str::to_owned).collect())
    }

    /// Deletes all indices and index templates whose names begin with the alias.
    async fn remove(&self, alias: &str) -> anyhow::Result<()> {
        for index in self.indices(alias).await? {
            self.ask(Method::DELETE, &format!("/{index}"), None).await?;
        }
        let templates = self.ask(Method::GET, &format!("/_index_template/{alias}*"), None).await?;
        let found = templates.unwrap_or_default();
        for template in found["index_templates"].as_array().into_iter().flatten() {
            if let Some(name) = template["name"].as_str() {
                self.ask(Method::DELETE, &format!("/_index_template/{name}"), None).await?;
            }
        }
        Ok(())
    }
}

impl OpenSearch {
    pub(crate) async fn connect(scenario: &str) -> anyhow::Result<Self> {
        let url: Url = setting("TEST_OPENSEARCH_URL")?.parse().context("TEST_OPENSEARCH_URL is not a URL")?;
        let server = OpenSearchClient::new(url)?;
        server.ask(Method::GET, "/", None).await.context("the OpenSearch of TEST_OPENSEARCH_URL does not answer")?;
        Ok(Self { server, alias: scenario.to_owned() })
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        let url = &self.server.url;
        format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port_or_known_default().unwrap_or(9200))
    }

    /// Returns the server's URL with another `host:port`.
    pub(crate) fn url(&self, address: &str) -> anyhow::Result<String> {
        let mut url = self.server.url.clone();
        anyhow::ensure!(set_address(&mut url, address)?, "the address in TEST_OPENSEARCH_URL cannot be replaced");
        Ok(url.into())
    }

    /// Sends a request that bypasses all links. Returns `None` for a 404; any other failure is an error.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Option<Value>> {
        self.server.ask(method, path, body).await
    }

    /// Refreshes the indices, so that searches see all documents written so far.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        self.ask(Method::POST, &format!("/{}/_refresh", self.alias), None).await?;
        Ok(())
    }

    /// Returns the names of the scenario's indices of all generations.
    pub async fn indices(&self) -> anyhow::Result<Vec<String>> {
        self.server.indices(&self.alias).await
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        let (url, alias) = (self.server.url.clone(), self.alias.clone());
        run_cleanup(async move { OpenSearchClient::new(url)?.remove(&alias).await });
    }
}
