//! The only place that lets time pass: asks again and again until something holds, and names what it waited for.

use std::fmt::{Debug, Display};
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// How often a condition is asked again.
const POLL: Duration = Duration::from_millis(20);

/// Nothing that works takes longer than this on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds. An error counts as "not yet", and is told if it is the last word.
pub async fn until(what: impl Display, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    until_some(what, async || Ok(holds().await?.then_some(()))).await
}

/// Waits until there is something, and gives it.
pub async fn until_some<T>(what: impl Display, look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    within(PATIENCE, what, look).await
}

/// Waits until looking shows what is expected, and otherwise tells what it showed last.
pub async fn until_eq<T: PartialEq + Debug>(
    what: impl Display,
    expected: T,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    within(PATIENCE, what, async || {
        let seen = look().await?;
        if seen == expected { Ok(Some(())) } else { bail!("saw {seen:?} instead of {expected:?}") }
    })
    .await
}

/// As [`until_some`], with a patience of one's own.
pub async fn within<T>(
    patience: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    let mut missing = "looking took too long".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "it did not come".clone_into(&mut missing),
            Ok(Err(error)) => missing = format!("{error:#}"),
            // What the last look that ended showed says more.
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}: {missing}", patience.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}
