//! OpenSearch, read through its alias.

use std::time::Duration;

use opensearch::OpenSearch;
use opensearch::http::headers::{ACCEPT_ENCODING, HeaderValue};
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use opensearch::indices::IndicesExistsParts;
use service::basic_auth::{Credentials, Server};
use service::metrics::Errors;

use crate::breaker::Breaker;
use crate::store_guard::{FailureClass, StoreError, StoreGuard};

/// Leaves more than half of a search's deadline (8 s) to Postgres.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The name of OpenSearch in metrics and errors.
pub const OPENSEARCH: &str = "opensearch";

/// The search index, called through its alias.
#[derive(Debug)]
pub struct SearchIndex {
    pub client: OpenSearch,
    /// The alias of the serving generation.
    pub alias: String,
    guard: StoreGuard,
}

impl SearchIndex {
    /// Connects with the first call. A user and password in the URL are sent as credentials and appear in no error.
    pub fn new(url: &str, alias: &str, breaker: Breaker, errors: Errors) -> anyhow::Result<Self> {
        let Server { url, credentials } = Server::at(url)?;
        let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(url)).disable_proxy().timeout(ANSWER_WITHIN);
        // OpenSearch is nearby: compressing an answer takes longer than sending it uncompressed.
        transport = transport.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(Credentials { user, password }) = credentials {
            transport = transport.auth(opensearch::auth::Credentials::Basic(user, password));
        }
        let client = OpenSearch::new(transport.build()?);
        let guard = StoreGuard::new(OPENSEARCH, breaker, Some(ANSWER_WITHIN), errors);
        Ok(Self { client, alias: alias.to_owned(), guard })
    }

    /// Makes a call with `self.client`. An error counts as an outage; a call that OpenSearch may reject must return that answer as
    /// `Ok`.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, opensearch::Error>>) -> Result<T, StoreError> {
        self.guard.call(call, |_| FailureClass::Outage).await
    }

    /// Whether OpenSearch answers and has the index, regardless of the circuit breaker.
    pub async fn ping(&self) -> Result<(), opensearch::Error> {
        let index = [self.alias.as_str()];
        self.client.indices().exists(IndicesExistsParts::Index(&index)).send().await?.error_for_status_code().map(drop)
    }
}
