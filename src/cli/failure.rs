//! How a command ends when it does not succeed: what is said on stderr, and the exit code.

use std::io::{IsTerminal, Write};

pub(super) use crate::config::{chain, reason};

/// What went wrong, where, and what to do, fit for a person.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    /// The listener's `error`; empty where it did not say one.
    error: String,
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

    /// Usage, or a configuration that is not valid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, message)
    }

    /// An answer of the admin listener that is not a success.
    pub(super) fn of_status(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            401 | 403 => DENIED,
            404 => NOT_FOUND,
            400 | 422 => USAGE,
            _ => FAILED,
        };
        Self::new(code, message)
    }

    /// As [`Failure::failed`], where a message says it all and has been printed.
    pub(super) fn silent() -> Self {
        Self::new(FAILED, "")
    }

    /// A decision that was asked for and is a no; it has been printed.
    pub(super) fn denied() -> Self {
        Self::new(DENIED, "")
    }

    /// With the listener's own code.
    pub(super) fn with_error(self, error: &str) -> Self {
        Self { error: error.to_owned(), ..self }
    }

    /// The same failure, better explained.
    pub(super) fn reworded(self, message: String) -> Self {
        Self { message, ..self }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, with another line below what was said.
    pub(super) fn adding(self, line: &str) -> Self {
        let message = format!("{}\n  {line}", self.message);
        self.reworded(message)
    }

    pub(super) fn error(&self) -> &str {
        &self.error
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }

    pub(super) fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let label = painted("error:", "1;31", &std::io::stderr());
        say(&format!("{label} {}", self.message));
    }
}

/// Does this to each one, whatever becomes of the others: who revokes several tokens wants as many revoked as can be.
/// The failures before the last are told at once.
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

/// The same words about every file that cannot be read.
pub(super) fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {}", path.display(), reason(error)))
}

/// A line on stderr; whoever closed it does not want to read it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Text in the colour of this code (SGR), where `stream` shows colours.
pub(crate) fn painted(text: &str, code: &str, stream: &impl IsTerminal) -> String {
    if colours(stream) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Colours are for terminals whose user has not declined them (no-color.org).
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
