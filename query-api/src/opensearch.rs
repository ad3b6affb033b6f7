//! OpenSearch, read through its alias.

use std::time::Duration;

use opensearch::OpenSearch;
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use service::metrics::Errors;
use url::Url;

use crate::breaker::Breaker;
use crate::dependency::{Dependency, Unanswered, Verdict};

/// Leaves more than half of a search's deadline (8 s) to Postgres.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The name of OpenSearch among the dependencies.
pub const OPENSEARCH: &str = "opensearch";
