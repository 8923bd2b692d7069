//! Failures of a command: the message on stderr, and the exit code.

use std::io::{IsTerminal, Write};

pub(super) use crate::config::{chain, reason};

/// What failed, where, and what to do about it, in words for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
    /// The listener's error code; empty if it sent none.
    pub(super) error: String,
}

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const DENIED: u8 = 3;
const NOT_FOUND: u8 = 4;
const UNREACHABLE: u8 = 5;

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), error: String::new() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    /// Wrong usage, or an invalid configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, message)
    }

    /// An error response of the admin listener.
    pub(super) fn of_status(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            401 | 403 => DENIED,
            404 => NOT_FOUND,
            400 | 422 => USAGE,
            _ => FAILED,
        };
        Self::new(code, message)
    }

    /// As [`Failure::failed`], after everything has been printed already.
    pub(super) fn silent() -> Self {
        Self::new(FAILED, "")
    }

    /// The decision that the command explained is a denial; it has been printed.
    pub(super) fn denied() -> Self {
        Self::new(DENIED, "")
    }

    /// Adds the listener's error code.
    pub(super) fn with_error(self, error: &str) -> Self {
        Self { error: error.to_owned(), ..self }
    }

    /// The same failure with another message.
    pub(super) fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// The same failure with another line below its message.
    pub(super) fn with_line(self, line: &str) -> Self {
        let message = format!("{}\n  {line}", self.message);
        self.with_message(message)
    }

    pub(super) fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let label = colored("error:", "1;31", &std::io::stderr());
        print_stderr(&format!("{label} {}", self.message));
    }
}

/// Applies `act` to each item, even after a failure, so that as many tokens as possible are revoked. Every
/// failure but the last is reported at once.
pub(super) fn for_each<T>(
    all: impl IntoIterator<Item = T>,
    mut act: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for one in all {
        if let Err(failure) = act(one)
            && let Some(before) = failed.replace(failure)
        {
            before.report();
        }
    }
    failed.map_or(Ok(()), Err)
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(reason(&error))
    }
}

/// The failure for a file that cannot be read.
pub(super) fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {}", path.display(), reason(error)))
}

/// Prints a line to stderr; ignores errors, because a closed stderr has no reader.
pub(crate) fn print_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The text in the colour of this SGR code, if `stream` shows colours.
pub(crate) fn colored(text: &str, code: &str, stream: &impl IsTerminal) -> String {
    if use_color(stream) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether to use colours: on terminals, unless the user has opted out (no-color.org).
pub(crate) fn use_color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
