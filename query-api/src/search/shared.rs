//! Answers of searches, for a moment: many who ask the same ask the index once.
//!
//! Not for those who have seen a write: their search starts after it (PROTOCOL Q1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service::problem::Problem;

use crate::consistency::Freshness;
use crate::page_cache::Lookups;
use crate::recent::Recent;

/// This much later than the index shows a new document its searchers may see it. However many they are, the index is asked the same
/// five times a second.
const ANSWERS_LIVE: Duration = Duration::from_millis(200);
/// All answers and their questions together, and one of them, in bytes.
const ANSWERS_WEIGH: u64 = 64 * 1024 * 1024;
const ANSWER_WEIGHS: u64 = 16 * 1024;
/// A longer question is not shared: while its answer is looked for nobody weighs it.
const QUESTION_LENGTH: usize = 2 * 1024;

/// A page as it is sent.
#[derive(Debug)]
pub struct Answer {
    pub body: Bytes,
    pub next_cursor: Option<String>,
    pub freshness: Freshness,
}

#[derive(Debug)]
pub struct SharedAnswers {
    answers: Recent<String, Arc<Answer>, Problem>,
    lookups: Lookups,
}

impl SharedAnswers {
    #[must_use]
    pub fn new(lookups: Lookups) -> Self {
        let answers = Recent::new(ANSWERS_WEIGH, ANSWER_WEIGHS, ANSWERS_LIVE);
        Self { answers, lookups }
    }

    /// The answer to a question: one that was just given, one that is being looked for, or a new one.
    pub async fn get(
        &self,
        question: &str,
        look: impl Future<Output = Result<Arc<Answer>, Problem>>,
    ) -> Result<Arc<Answer>, Problem> {
        if question.len() > QUESTION_LENGTH {
            return look.await;
        }
        let weigh = |answer: &Arc<Answer>| (question.len() + answer.body.len()) as u64;
        let (answer, is_new) = self.answers.get_or_load(question, look, weigh).await;
        let answer = answer?;
        if is_new {
            self.lookups.misses.inc()
        } else {
            self.lookups.hits.inc()
        };
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn answer() -> Arc<Answer> {
        Arc::new(Answer { body: Bytes::from_static(b"{}"), next_cursor: None, freshness: Freshness::Fresh })
    }

    #[tokio::test]
    async fn the_same_question_is_looked_for_once() {
        let shared = SharedAnswers::new(Lookups { hits: Counter::default(), misses: Counter::default() });
        let looked = AtomicU32::new(0);
        let look = || async {
            looked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(answer())
        };
        let (one, other) = tokio::join!(shared.get("q=a", look()), shared.get("q=a", look()));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(looked.load(Ordering::Relaxed), 1);
        shared.get("q=b", look()).await.unwrap();
        assert_eq!(looked.load(Ordering::Relaxed), 2);
        assert_eq!((shared.lookups.hits.get(), shared.lookups.misses.get()), (1, 2));
    }

    #[tokio::test]
    async fn a_question_of_which_few_would_fill_the_memory_is_not_shared() {
        let shared = SharedAnswers::new(Lookups { hits: Counter::default(), misses: Counter::default() });
        let long = "q".repeat(QUESTION_LENGTH + 1);
        shared.get(&long, async { Ok(answer()) }).await.unwrap();
        assert!(shared.get(&long, async { Err(Problem::malformed("looked for again")) }).await.is_err());
    }

    #[tokio::test]
    async fn a_refusal_is_not_kept() {
        let shared = SharedAnswers::new(Lookups { hits: Counter::default(), misses: Counter::default() });
        let refused = shared.get("q=a", async { Err(Problem::malformed("no")) }).await;
        assert_eq!(refused.unwrap_err(), Problem::malformed("no"));
        assert!(shared.get("q=a", async { Ok(answer()) }).await.is_ok());
    }
}
