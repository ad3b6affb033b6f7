//! OpenSearch, read through its alias.

use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use opensearch::OpenSearch;
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use opensearch::indices::IndicesExistsParts;
use service::basic_auth::{Credentials, Server};
use service::metrics::Errors;

use crate::breaker::Breaker;
use crate::dependency::{Dependency, Unanswered, Verdict};

/// Leaves more than half of a search's deadline (8 s) to Postgres.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The name of OpenSearch among the dependencies.
pub const OPENSEARCH: &str = "opensearch";

/// The search index and how it is asked.
#[derive(Debug)]
pub struct SearchIndex {
    pub client: OpenSearch,
    /// The name that the serving generation answers to.
    pub alias: String,
    dependency: Dependency,
}

impl SearchIndex {
    /// Connects when it is first asked. A user and password in the URL are sent as such and appear in no error.
    pub fn new(url: &str, alias: &str, breaker: Breaker, errors: Errors) -> anyhow::Result<Self> {
        let Server { url, credentials } = Server::at(url)?;
        let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(url)).disable_proxy().timeout(ANSWER_WITHIN);
        // The node is next door: packing an answer there and unpacking it here takes longer than sending it as it is.
        transport = transport.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(Credentials { user, password }) = credentials {
            transport = transport.auth(opensearch::auth::Credentials::Basic(user, password));
        }
        let client = OpenSearch::new(transport.build()?);
        let dependency = Dependency::new(OPENSEARCH, breaker, Some(ANSWER_WITHIN), errors);
        Ok(Self { client, alias: alias.to_owned(), dependency })
    }

    /// Asks something of `self.client`. An error is an outage; whatever OpenSearch answered, a refusal too, is the `Ok` of
    /// the question, for its asker to judge.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T, opensearch::Error>>) -> Result<T, Unanswered> {
        self.dependency.ask(question, |_| Verdict::Outage).await
    }

    /// Whether it answers and has the index, whatever the breaker thinks.
    pub async fn ping(&self) -> Result<(), opensearch::Error> {
        let index = [self.alias.as_str()];
        self.client.indices().exists(IndicesExistsParts::Index(&index)).send().await?.error_for_status_code().map(drop)
    }
}
