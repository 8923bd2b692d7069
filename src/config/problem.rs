//! Problems of a configuration as they are shown: file, line, column, the line itself, advice. They never
//! contain a secret, not even a misplaced one.

use std::{fmt, sync::Arc};

use crate::authz::{administration::names, secret::redact};

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

/// Parts of keys whose values may be secrets, including misspelled keys.
const SECRET_KEY_PARTS: [&str; 8] =
    ["auth", "token", "secret", "passw", "credential", "bearer", "cookie", "api_key"];

/// Returns a line fit to be shown: without the value of a secretive key (unless it is a reference), user
/// information and tokens. A line without `=` has no key to judge by and loses only the latter two.
pub(super) fn mask_secrets(line: &str) -> String {
    let line = line.trim_end();
    let cut = line.find('=').unwrap_or(line.len());
    let (key, value) = line.split_at(cut);
    let folded = key.to_ascii_lowercase();
    let line = if SECRET_KEY_PARTS.iter().any(|word| folded.contains(word)) {
        let points_elsewhere = value.trim_start_matches(['=', ' ', '\t', '"', '\'']);
        if value.is_empty() || points_elsewhere.starts_with("file:") || points_elsewhere.starts_with("env:") {
            line.to_owned()
        } else {
            format!("{key}= ...")
        }
    } else {
        without_user_info(line)
    };
    let line = redact(&line).into_owned();
    line.chars().map(|c| if names::is_deceptive(c) { ' ' } else { c }).collect()
}

/// Replaces what is between `//` and `@` in `http://user:password@host`.
fn without_user_info(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(['/', '"', '\'', ' ', ',']).unwrap_or(after.len());
        rest = after;
        if let Some(sign) = after[..end].rfind('@') {
            shown.push_str("...");
            rest = &after[sign..];
        }
    }
    shown.push_str(rest);
    shown
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
