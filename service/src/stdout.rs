//! What a tool prints, to whoever still reads.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line. A reader who has closed the pipe (`| head`) has seen enough: that is no failure, and no panic.
///
/// # Errors
/// If it cannot be written for another reason, as to a full disk.
pub fn tell(line: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}
