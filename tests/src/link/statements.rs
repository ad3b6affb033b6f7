//! Reads what a program says to Postgres, as far as needed to know which statement is executed when.

use std::collections::HashMap;

/// Asks for TLS before the first real message.
const SSL_REQUEST: u32 = 80_877_103;
/// Every message states its length, itself included but not the letter before it.
const LENGTH: usize = 4;
/// Anything that claims to be longer is no Postgres message, in bytes.
const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;

/// The frontend side of one Postgres connection.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// A message that has not come whole yet.
    partial: Vec<u8>,
    started: bool,
    /// Text of each prepared statement by its name.
    prepared: HashMap<Vec<u8>, String>,
    /// What was said cannot be Postgres; nothing is looked for any more.
    foreign: bool,
}

impl Statements {
    /// The statements whose execution this chunk completes, each with where its message begins; 0 if that was in an earlier one.
    pub fn executed(&mut self, chunk: &[u8]) -> Vec<(usize, String)> {
        if self.foreign {
            return Vec::new();
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(chunk);
        let mut executed = Vec::new();
        let mut at = 0;
        while let Some(end) = self.message_end(at) {
            if let Some(statement) = self.read(at, end) {
                executed.push((at.saturating_sub(before), statement));
            }
            at = end;
        }
        self.partial.drain(..at.min(self.partial.len()));
        executed
    }

    fn message_end(&mut self, at: usize) -> Option<usize> {
        let letter = usize::from(self.started);
        let length = self.number(at + letter)? as usize;
        if !(LENGTH..=MESSAGE_LIMIT).contains(&length) {
            self.foreign = true;
            self.partial.clear();
            return None;
        }
        let end = at + letter + length;
        (end <= self.partial.len()).then_some(end)
    }

    fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.partial.get(at..at + LENGTH)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// Takes note of one whole message; a statement if it executes one.
    fn read(&mut self, at: usize, end: usize) -> Option<String> {
        if !self.started {
            self.started = self.number(at + LENGTH) != Some(SSL_REQUEST);
            return None;
        }
        let mut strings = self.partial[at + 1 + LENGTH..end].split(|byte| *byte == 0);
        match self.partial[at] {
            b'Q' => strings.next().map(text),
            b'P' => {
                let (name, statement) = (strings.next()?.to_vec(), text(strings.next()?));
                self.prepared.insert(name, statement);
                None
            }
            b'B' => self.prepared.get(strings.nth(1)?).cloned(),
            _ => None,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: &str, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(LENGTH + body.len()).unwrap();
        [letter.as_bytes(), &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_prepared_statement_is_seen_each_time_it_is_bound() {
        let mut statements = Statements::default();
        assert!(statements.executed(&message("", &SSL_REQUEST.to_be_bytes())).is_empty());
        let start = [message("", b"\x00\x03\x00\x00user\0ada\0\0"), message("P", b"s1\0delete from x\0\0\0")].concat();
        assert!(statements.executed(&start).is_empty());
        let bind = message("B", b"\0s1\0\0\0\0\0\0\0");
        assert_eq!(statements.executed(&bind), vec![(0, "delete from x".to_owned())]);
        let later = [message("S", b""), bind].concat();
        assert_eq!(statements.executed(&later), vec![(5, "delete from x".to_owned())]);
    }

    #[test]
    fn a_message_may_come_in_pieces() {
        let mut statements = Statements::default();
        statements.executed(&message("", b"\x00\x03\x00\x00\0"));
        let query = message("Q", b"select 1\0");
        for byte in &query[..query.len() - 1] {
            assert!(statements.executed(&[*byte]).is_empty());
        }
        assert_eq!(statements.executed(&query[query.len() - 1..]), vec![(0, "select 1".to_owned())]);
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let mut statements = Statements::default();
        assert!(statements.executed(b"CONNECT {\"verbose\":false}\r\n").is_empty());
        assert!(statements.foreign);
    }
}
