//! Polls a condition until it holds or a timeout expires. A timeout error names the condition and what was last seen.

use std::fmt::{Debug, Display};
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Default timeout. On two busy cores every condition that can hold does so within this time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds. An error counts as "not yet"; the last one is part of the timeout error.
pub async fn until(what: impl Display, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    until_some(what, async || Ok(holds().await?.then_some(()))).await
}

/// Waits until `look` returns `Some`, and returns the value.
pub async fn until_some<T>(what: impl Display, look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    within(PATIENCE, what, look).await
}

/// Waits until `look` returns the expected value. The timeout error shows the last value that differed.
pub async fn until_eq<T: PartialEq + Debug>(
    what: impl Display,
    expected: T,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    within(PATIENCE, what, async || {
        let seen = look().await?;
        if seen == expected { Ok(Some(())) } else { bail!("{seen:?} instead of {expected:?}") }
    })
    .await
}

/// As [`until_some`], with a timeout given by the caller.
pub async fn within<T>(
    patience: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    let mut last_seen = "the first check did not finish in time".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "the condition did not hold".clone_into(&mut last_seen),
            Ok(Err(error)) => last_seen = format!("{error:#}"),
            // The last check timed out; the result of the one before it is more useful in the error.
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("timed out after {} s waiting for {what}: {last_seen}", patience.as_secs());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
