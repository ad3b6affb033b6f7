//! Parses the frontend side of the Postgres protocol, as far as needed to know which statement is executed when.

use std::collections::HashMap;

/// Code of an `SSLRequest`, which may precede the startup message.
const SSL_REQUEST: u32 = 80_877_103;
/// Size of a message's length field. The length includes the field itself, but not the type byte before it.
const LENGTH_BYTES: usize = 4;
/// Maximum length of a message in bytes. A greater length means that the protocol is not Postgres.
const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;

/// Finds executed statements in the bytes that a program sends on one connection.
#[derive(Debug, Default)]
pub(super) struct StatementParser {
    /// The beginning of a message whose end has not arrived yet.
    partial: Vec<u8>,
    /// Whether the startup message has been read. It and an `SSLRequest` have no type byte.
    started: bool,
    /// The text of each prepared statement, by its name.
    prepared: HashMap<Vec<u8>, String>,
    /// The protocol is not Postgres: all further bytes are ignored.
    is_other_protocol: bool,
}

impl StatementParser {
    /// Returns the statements whose execution message ends in this chunk, each with the position where that message begins; 0
    /// if it began in an earlier chunk.
    pub fn executed(&mut self, chunk: &[u8]) -> Vec<(usize, String)> {
        if self.is_other_protocol {
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

    /// Returns the end of the message that begins at `at`, if it is complete.
    fn message_end(&mut self, at: usize) -> Option<usize> {
        let type_byte = usize::from(self.started);
        let length = self.number(at + type_byte)? as usize;
        if !(LENGTH_BYTES..=MESSAGE_LIMIT).contains(&length) {
            self.is_other_protocol = true;
            self.partial.clear();
            return None;
        }
        let end = at + type_byte + length;
        (end <= self.partial.len()).then_some(end)
    }

    fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.partial.get(at..at + LENGTH_BYTES)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// Reads one complete message, and returns the statement if the message executes one.
    fn read(&mut self, at: usize, end: usize) -> Option<String> {
        if !self.started {
            self.started = self.number(at + LENGTH_BYTES) != Some(SSL_REQUEST);
            return None;
        }
        let mut strings = self.partial[at + 1 + LENGTH_BYTES..end].split(|byte| *byte == 0);
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
        let length = u32::try_from(LENGTH_BYTES + body.len()).unwrap();
        [letter.as_bytes(), &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_prepared_statement_is_seen_each_time_it_is_bound() {
        let mut statements = StatementParser::default();
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
        let mut statements = StatementParser::default();
        statements.executed(&message("", b"\x00\x03\x00\x00\0"));
        let query = message("Q", b"select 1\0");
        for byte in &query[..query.len() - 1] {
            assert!(statements.executed(&[*byte]).is_empty());
        }
        assert_eq!(statements.executed(&query[query.len() - 1..]), vec![(0, "select 1".to_owned())]);
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let mut statements = StatementParser::default();
        assert!(statements.executed(b"CONNECT {\"verbose\":false}\r\n").is_empty());
        assert!(statements.is_other_protocol);
    }
}
