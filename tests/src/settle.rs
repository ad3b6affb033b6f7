//! When everything that was committed has reached every store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use events::AggregateKey;
use futures_util::TryStreamExt as _;

use crate::marketplace::Marketplace;
use crate::until::{PATIENCE, until_eq, within};

/// The stream of all events.
pub(crate) const EVENTS: &str = "LISTINGS_EVENTS";

impl Marketplace {
    /// Waits until every event is published and every projection has answered for it, and makes searches see it.
    pub async fn settle(&self) -> anyhow::Result<()> {
        until_eq("the stream to hold the journal", Vec::new(), async || self.missing_from_stream().await).await?;
        self.settle_within(PATIENCE).await
    }

    /// The same, for much more than a scenario has, where the relay repairs nothing.
    pub async fn settle_within(&self, patience: Duration) -> anyhow::Result<()> {
        within(patience, "everything to settle", async || match self.unsettled().await?.as_str() {
            "" => Ok(Some(())),
            unsettled => bail!("{unsettled}"),
        })
        .await?;
        self.opensearch.refresh().await
    }

    /// What is still on its way. Asked in the direction of the flow: what has left one place is counted at the next.
    async fn unsettled(&self) -> anyhow::Result<String> {
        let mut unsettled = String::new();
        let outbox = self.outbox().await?;
        if outbox > 0 {
            write!(unsettled, "{outbox} events are not published; ")?;
        }
        let stream = self.nats.jetstream().get_stream(EVENTS).await?;
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers.try_next().await? {
            let (unread, unanswered) = (consumer.num_pending, consumer.num_ack_pending);
            // A consumer without a name is somebody who listens along.
            if consumer.config.durable_name.is_some() && (unread > 0 || unanswered > 0) {
                write!(unsettled, "{} has {unread} events unread and {unanswered} unanswered; ", consumer.name)?;
            }
        }
        Ok(unsettled)
    }

    /// The aggregates whose last version is not in the stream. An empty outbox does not say so while the relay repairs: it
    /// publishes from the journal.
    async fn missing_from_stream(&self) -> anyhow::Result<Vec<(AggregateKey, u64)>> {
        let mut missing: BTreeMap<AggregateKey, u64> = BTreeMap::new();
        for entry in self.journal().await? {
            let last = missing.entry(entry.key).or_default();
            *last = entry.version.max(*last);
        }
        for message in self.stream().await? {
            if let Some(key) = message.key()
                && message.version() >= missing.get(&key).copied()
            {
                missing.remove(&key);
            }
        }
        Ok(missing.into_iter().collect())
    }
}
