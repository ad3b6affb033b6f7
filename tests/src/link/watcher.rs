//! Finds the moments at which a scenario wants a connection to be held.

use std::sync::Arc;

use tokio::sync::watch;

use super::statements::StatementParser;
use crate::until::until;

/// Direction of the bytes on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToProgram,
}

/// When to hold a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// These bytes are sent in this direction.
    Bytes(Direction, Vec<u8>),
    /// The program asks Postgres to execute a statement that contains this text, prepared or not. Case and white space are
    /// ignored.
    Statement(String),
}

impl Moment {
    /// The program sends this text to the server.
    #[must_use]
    pub fn request(text: &str) -> Self {
        Self::Bytes(Direction::ToServer, text.into())
    }

    /// The server sends this text to the program.
    #[must_use]
    pub fn answer(text: &str) -> Self {
        Self::Bytes(Direction::ToProgram, text.into())
    }

    /// The program asks Postgres to execute a statement that contains this text.
    #[must_use]
    pub fn statement(text: &str) -> Self {
        Self::Statement(text.to_owned())
    }
}

/// A request to stop a connection at a moment. Dropping it releases the connection.
#[derive(Debug)]
pub struct Hold {
    moment: Moment,
    reached: Arc<watch::Sender<bool>>,
    release: watch::Sender<bool>,
}

/// The link's side of a [`Hold`].
#[derive(Debug)]
pub(super) struct ArmedHold {
    moment: Moment,
    reached: Arc<watch::Sender<bool>>,
    released: watch::Receiver<bool>,
}

impl Hold {
    pub(super) fn at(moment: Moment) -> (Self, ArmedHold) {
        let reached = Arc::new(watch::Sender::new(false));
        let (release, released) = watch::channel(false);
        let armed = ArmedHold { moment: moment.clone(), reached: Arc::clone(&reached), released };
        (Self { moment, reached, release }, armed)
    }

    /// Waits until a connection has reached the moment and is held.
    pub async fn reached(&self) -> anyhow::Result<()> {
        until(format_args!("{:?} on a link", self.moment), async || Ok(self.is_reached())).await
    }

    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self.reached.borrow()
    }

    /// Lets the connection continue, if it still exists. Dropping the hold does the same.
    pub fn release(self) {
        self.release.send_replace(true);
    }
}

impl ArmedHold {
    /// Reports that the moment is reached, and waits until the hold is released or dropped.
    pub async fn wait_until_released(mut self) {
        self.reached.send_replace(true);
        // An error means that the hold was dropped.
        let _ = self.released.wait_for(|released| *released).await;
    }

    /// Whether the hold has been dropped.
    fn is_stale(&self) -> bool {
        self.released.has_changed().is_err()
    }
}

/// Searches one direction of one connection for armed moments, from its first byte on.
#[derive(Debug)]
pub(super) struct Watcher {
    direction: Direction,
    /// Only in the direction to the server.
    statements: Option<StatementParser>,
    /// The last bytes of the earlier chunks, because a pattern may begin in one chunk and end in the next.
    tail: Vec<u8>,
}

/// Bytes kept of earlier chunks. No pattern of a scenario is longer.
const TAIL_BYTES: usize = 512;

impl Watcher {
    pub fn new(direction: Direction) -> Self {
        let statements = (direction == Direction::ToServer).then(StatementParser::default);
        Self { direction, statements, tail: Vec::new() }
    }

    /// Returns the position in the chunk of the first armed moment, and removes that moment from `armed`.
    pub fn find(&mut self, chunk: &[u8], armed: &mut Vec<ArmedHold>) -> Option<(usize, ArmedHold)> {
        armed.retain(|armed| !armed.is_stale());
        let executed = self.statements.as_mut().map(|statements| statements.executed(chunk)).unwrap_or_default();
        let at = |armed: &ArmedHold| match &armed.moment {
            Moment::Bytes(direction, bytes) if *direction == self.direction => self.position(chunk, bytes),
            Moment::Statement(text) => {
                let text = normalized(text);
                executed.iter().find(|(_, statement)| normalized(statement).contains(&text)).map(|(at, _)| *at)
            }
            Moment::Bytes(..) => None,
        };
        let found = armed.iter().enumerate().filter_map(|(index, armed)| Some((at(armed)?, index))).min();

        self.tail.extend_from_slice(chunk);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        found.map(|(at, index)| (at, armed.remove(index)))
    }

    /// Returns the position of a pattern. If it began in an earlier chunk, that is 0: the start of the pattern is already
    /// forwarded, its end is not.
    fn position(&self, chunk: &[u8], bytes: &[u8]) -> Option<usize> {
        let before = self.tail.len().min(bytes.len().saturating_sub(1));
        let seen = [&self.tail[self.tail.len() - before..], chunk].concat();
        let at = seen.windows(bytes.len()).position(|window| window == bytes)?;
        Some(at.saturating_sub(before))
    }
}

fn normalized(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(chunks: &[&str], moment: Moment) -> Option<(usize, usize)> {
        let mut watcher = Watcher::new(Direction::ToProgram);
        let (_hold, armed) = Hold::at(moment);
        let mut armed = vec![armed];
        chunks.iter().enumerate().find_map(|(n, chunk)| Some((n, watcher.find(chunk.as_bytes(), &mut armed)?.0)))
    }

    #[test]
    fn bytes_are_found_within_a_chunk_and_across_two() {
        assert_eq!(find(&["abc-ack-def"], Moment::answer("ack")), Some((0, 4)));
        assert_eq!(find(&["abc-a", "ck-def"], Moment::answer("ack")), Some((1, 0)));
        assert_eq!(find(&["a", "c", "k"], Moment::answer("ack")), Some((2, 0)));
        assert_eq!(find(&["abc", "kac"], Moment::answer("ack")), None);
        assert_eq!(find(&["ack"], Moment::request("ack")), None);
    }

    #[test]
    fn a_moment_is_taken_once_and_a_dropped_hold_never() {
        let mut watcher = Watcher::new(Direction::ToProgram);
        let (hold, first) = Hold::at(Moment::answer("x"));
        let mut armed = vec![first];
        assert!(watcher.find(b"x", &mut armed).is_some());
        assert!(watcher.find(b"x", &mut armed).is_none());
        drop(hold);
        let (hold, dropped) = Hold::at(Moment::answer("x"));
        armed.push(dropped);
        drop(hold);
        assert!(watcher.find(b"x", &mut armed).is_none());
    }
}
