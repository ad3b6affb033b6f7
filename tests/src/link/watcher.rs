//! Finds the moment at which a scenario wants a connection held.

use std::sync::Arc;

use tokio::sync::watch;

use super::statements::Statements;
use crate::until::until;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToProgram,
}

/// When to hold a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// These bytes go by.
    Bytes(Direction, Vec<u8>),
    /// A statement that contains this text is about to be executed by Postgres, prepared or not. Case and white space do not
    /// matter.
    Statement(String),
}

impl Moment {
    /// The program says this to the server.
    #[must_use]
    pub fn request(text: &str) -> Self {
        Self::Bytes(Direction::ToServer, text.into())
    }

    /// The server says this to the program.
    #[must_use]
    pub fn answer(text: &str) -> Self {
        Self::Bytes(Direction::ToProgram, text.into())
    }

    /// Postgres is asked to execute this.
    #[must_use]
    pub fn statement(text: &str) -> Self {
        Self::Statement(text.to_owned())
    }
}

/// A place on one connection where everything stops, once it is reached.
#[derive(Debug)]
pub struct Hold {
    moment: Moment,
    reached: Arc<watch::Sender<bool>>,
    release: watch::Sender<bool>,
}

/// The link's end of a [`Hold`].
#[derive(Debug)]
pub(super) struct Armed {
    moment: Moment,
    reached: Arc<watch::Sender<bool>>,
    released: watch::Receiver<bool>,
}

impl Hold {
    pub(super) fn at(moment: Moment) -> (Self, Armed) {
        let reached = Arc::new(watch::Sender::new(false));
        let (release, released) = watch::channel(false);
        let armed = Armed { moment: moment.clone(), reached: Arc::clone(&reached), released };
        (Self { moment, reached, release }, armed)
    }

    /// Waits until a connection is held here.
    pub async fn reached(&self) -> anyhow::Result<()> {
        until(format_args!("{:?} on a link", self.moment), async || Ok(self.is_reached())).await
    }

    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self.reached.borrow()
    }

    /// Lets the connection go on, if it still exists. Dropping the hold does the same.
    pub fn release(self) {
        self.release.send_replace(true);
    }
}

impl Armed {
    pub async fn until_released(mut self) {
        self.reached.send_replace(true);
        // An error means that the hold was dropped.
        let _ = self.released.wait_for(|released| *released).await;
    }

    /// Nobody waits for it any more.
    fn is_stale(&self) -> bool {
        self.released.has_changed().is_err()
    }
}

/// Looks at one direction of one connection from its first byte on.
#[derive(Debug)]
pub(super) struct Watcher {
    direction: Direction,
    statements: Option<Statements>,
    /// The end of what went by already: a pattern may lie across two reads.
    tail: Vec<u8>,
}

/// No pattern of a scenario is longer, in bytes.
const TAIL: usize = 512;

impl Watcher {
    pub fn new(direction: Direction) -> Self {
        let statements = (direction == Direction::ToServer).then(Statements::default);
        Self { direction, statements, tail: Vec::new() }
    }

    /// Where in the chunk the first armed moment lies, which is thereby taken.
    pub fn find(&mut self, chunk: &[u8], armed: &mut Vec<Armed>) -> Option<(usize, Armed)> {
        armed.retain(|armed| !armed.is_stale());
        let executed = self.statements.as_mut().map(|statements| statements.executed(chunk)).unwrap_or_default();
        let at = |armed: &Armed| match &armed.moment {
            Moment::Bytes(direction, bytes) if *direction == self.direction => self.position(chunk, bytes),
            Moment::Statement(text) => {
                let text = normalized(text);
                executed.iter().find(|(_, statement)| normalized(statement).contains(&text)).map(|(at, _)| *at)
            }
            Moment::Bytes(..) => None,
        };
        let found = armed.iter().enumerate().filter_map(|(index, armed)| Some((at(armed)?, index))).min();

        self.tail.extend_from_slice(chunk);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        found.map(|(at, index)| (at, armed.remove(index)))
    }

    /// A pattern that began in an earlier chunk is held at the start of this one: its end is not there yet.
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
