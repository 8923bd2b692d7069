//! How a command ends when it does not succeed: what is said on stderr, and the exit code.

use std::io::{IsTerminal, Write};

/// What went wrong, where, and what to do, fit for a person.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const DENIED: u8 = 3;
const NOT_FOUND: u8 = 4;
const UNREACHABLE: u8 = 5;

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// Usage, or a configuration that is not valid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, message: message.into() }
    }

    /// An answer of the admin listener that is not a success.
    pub(super) fn of_status(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            401 | 403 => DENIED,
            404 => NOT_FOUND,
            400 | 422 => USAGE,
            _ => FAILED,
        };
        Self { code, message: message.into() }
    }

    /// As [`Failure::failed`], where a message says it all and has been printed.
    pub(super) fn silent() -> Self {
        Self { code: FAILED, message: String::new() }
    }

    /// A decision that was asked for and is a no; it has been printed.
    pub(super) fn denied() -> Self {
        Self { code: DENIED, message: String::new() }
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }

    pub(super) fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let label = if colours(&std::io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        say(&format!("{label} {}", self.message));
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// A line on stderr; whoever closed it does not want to read it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Colours are for terminals whose user has not declined them (no-color.org).
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
