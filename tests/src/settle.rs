//! Waits until every committed event is published and applied by every projection.

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
    /// Waits until every event is in the stream and acknowledged by every projection, then refreshes the search index.
    pub async fn settle(&self) -> anyhow::Result<()> {
        until_eq("the stream to hold the journal", Vec::new(), async || self.missing_from_stream().await).await?;
        self.settle_within(PATIENCE).await
    }

    /// As [`Self::settle`], with a timeout given by the caller, for benchmarks with many events. Does not compare the journal
    /// with the stream: that reads both completely, and is only needed where the relay has repaired the stream.
    pub async fn settle_within(&self, patience: Duration) -> anyhow::Result<()> {
        within(patience, "everything to settle", async || match self.unsettled().await?.as_str() {
            "" => Ok(Some(())),
            unsettled => bail!("{unsettled}"),
        })
        .await?;
        self.opensearch.refresh().await
    }

    /// Describes the events that are still in progress. Checks the outbox before the consumers, in the direction of the flow: an
    /// event that has just left the outbox is then counted as pending in the stream.
    async fn unsettled(&self) -> anyhow::Result<String> {
        let mut unsettled = String::new();
        let outbox = self.outbox().await?;
        if outbox > 0 {
            write!(unsettled, "{outbox} events are not published yet; ")?;
        }
        let stream = self.nats.jetstream().get_stream(EVENTS).await?;
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers.try_next().await? {
            let (pending, unacknowledged) = (consumer.num_pending, consumer.num_ack_pending);
            // Consumers without a durable name belong to query-api and to the harness, not to a projection.
            if consumer.config.durable_name.is_some() && (pending > 0 || unacknowledged > 0) {
                write!(unsettled, "{} has {pending} events pending and {unacknowledged} unacknowledged; ", consumer.name)?;
            }
        }
        Ok(unsettled)
    }

    /// Returns the aggregates whose last version is not in the stream. An empty outbox does not prove that there are none: a
    /// repair publishes from the journal.
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
