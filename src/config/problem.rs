//! Problems of a configuration as they are shown: file, line, column, the line itself, advice. They never
//! contain a secret, not even a misplaced one.

use std::{fmt, sync::Arc};

/// An error, or as a warning something unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<str>,
    /// From 1; 0 for a problem of the whole file.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The problematic line, with possible secrets removed.
    pub excerpt: String,
    /// How many characters to mark from `column` on.
    pub width: u32,
    pub message: String,
    /// What to do; empty if the message says enough.
    pub advice: String,
}

/// All errors in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Problem>);

impl Errors {
    /// An error of the whole file, such as that it cannot be read.
    pub(super) fn in_file(file: &str, message: String, advice: &str) -> Self {
        Self(vec![Problem {
            file: file.into(),
            line: 0,
            column: 0,
            excerpt: String::new(),
            width: 0,
            message,
            advice: advice.into(),
        }])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
            writeln!(f, "{:>5} | {}", self.line, self.excerpt)?;
            let shown = u32::try_from(self.excerpt.chars().count()).unwrap_or(u32::MAX);
            let width = self.width.min((shown + 1).saturating_sub(self.column)).max(1);
            let indent = (self.column - 1).min(shown);
            write!(f, "      | {}{}", " ".repeat(indent as usize), "^".repeat(width as usize))?;
        }
        if !self.advice.is_empty() {
            write!(f, "\n      = {}", self.advice)?;
        }
        Ok(())
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 error"),
            n => write!(f, "{n} errors"),
        }
    }
}

impl std::error::Error for Errors {}

/// The operating system's message without the error number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// An error followed by its causes, each once, and without the numbers of the system's errors.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.downcast_ref().map_or_else(|| error.to_string(), reason);
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to bind")]
    struct Failed(#[source] io::Error);

    #[test]
    fn a_chain_has_no_error_numbers() {
        let error = Failed(io::Error::from_raw_os_error(2));
        assert_eq!(super::chain(&error), "failed to bind: No such file or directory");
    }
}
