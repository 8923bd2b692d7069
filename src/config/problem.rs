//! What is wrong with a configuration, told for people: file, line, column, the line itself, what to
//! do. Never shows a secret, not even one that was written where none belongs.

use std::{cell::RefCell, fmt, ops::Range, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use crate::authz::secret::redact;

/// One thing that is wrong (or, as a warning, unwise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<str>,
    /// From 1; 0 where the file itself is the matter.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The offending line; what may be a secret in it is blotted out.
    pub excerpt: String,
    /// How many characters from `column` on are meant.
    pub width: u32,
    pub message: String,
    /// What to do: empty where the message says it all.
    pub advice: String,
}

/// All that is wrong, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Problem>);

/// Whether what a text names outside itself, files and environment variables, is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    Read,
    /// The text is somebody's who may not learn what there is.
    Ignored,
}

/// Collects problems while a text is read.
pub(super) struct Problems<'t> {
    file: Arc<str>,
    text: &'t str,
    pub(super) outside: Outside,
    errors: RefCell<Vec<Problem>>,
    exposed: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

/// What was found, each in the order of the file.
pub(super) struct Found {
    pub(super) errors: Vec<Problem>,
    pub(super) exposed: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: Arc<str>, text: &'t str, outside: Outside) -> Self {
        let (errors, exposed, warnings) = Default::default();
        Self { file, text, outside, errors, exposed, warnings }
    }

    pub(super) fn file(&self) -> &Arc<str> {
        &self.file
    }

    pub(super) fn error(&self, span: &Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        let problem = self.locate(span, &message.into(), advice.into());
        self.errors.borrow_mut().push(problem);
    }

    pub(super) fn warn(&self, span: &Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        let problem = self.locate(span, &message.into(), advice.into());
        self.warnings.borrow_mut().push(problem);
    }

    /// Reports a file with a secret that users of the machine may read, or change, who are neither its owner
    /// nor in its group.
    pub(super) fn require_private(&self, span: &Range<usize>, path: &Path) {
        let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
        if self.outside == Outside::Read && mode & 0o006 != 0 {
            let message =
                format!("every user of this machine can read or change {} (mode {mode:04o})", path.display());
            let advice = "`chmod 600` it, or 640 with a group of its own, and replace the secret".to_owned();
            let problem = self.locate(span, &message, advice);
            self.exposed.borrow_mut().push(problem);
        }
    }

    /// A problem that is known by its line alone.
    pub(super) fn error_on_line(&self, line: u32, message: impl Into<String>) {
        let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        let start = self.text.split_inclusive('\n').take(index).map(str::len).sum::<usize>();
        let written = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let indent = written.len() - written.trim_start().len();
        self.error(&(start + indent..start + written.trim_end().len()), message, "");
    }

    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        self.position(span.start).0
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Drops what a later stage found on the lines of an earlier stage's errors: it is their echo.
    pub(super) fn drop_echoes(&self, first: usize) {
        let mut errors = self.errors.borrow_mut();
        let lines: Vec<u32> = errors.iter().take(first).map(|p| p.line).collect();
        let mut index = 0;
        errors.retain(|p| {
            index += 1;
            index <= first || !lines.contains(&p.line)
        });
    }

    pub(super) fn error_count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_found(self) -> Found {
        let sorted = |cell: RefCell<Vec<Problem>>| {
            let mut problems = cell.into_inner();
            problems.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
            problems.dedup();
            problems
        };
        Found { errors: sorted(self.errors), exposed: sorted(self.exposed), warnings: sorted(self.warnings) }
    }

    fn locate(&self, span: &Range<usize>, message: &str, advice: String) -> Problem {
        let (line, column) = self.position(span.start);
        let start = self.line_start(span.start);
        let written = self.text[start..].lines().next().unwrap_or_default();
        let meant = self.text.get(span.clone()).unwrap_or_default();
        let width = meant.lines().next().unwrap_or_default().chars().count().max(1);
        Problem {
            file: self.file.clone(),
            line,
            column,
            excerpt: blot(written).chars().take(SHOWN).collect(),
            width: u32::try_from(width).unwrap_or(u32::MAX),
            message: redact(message).into_owned(),
            advice,
        }
    }

    fn position(&self, offset: usize) -> (u32, u32) {
        let start = self.line_start(offset);
        let line = self.text[..start].matches('\n').count() + 1;
        let column = self.text[start..self.floor(offset)].chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn line_start(&self, offset: usize) -> usize {
        self.text[..self.floor(offset)].rfind('\n').map_or(0, |at| at + 1)
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }
}

impl Errors {
    /// The file could not even be read.
    pub(super) fn of_file(file: &str, message: String, advice: &str) -> Self {
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

/// How much of a line is shown, in characters.
const SHOWN: usize = 200;

/// Words in a key that say that its value may be a secret, also where the key itself is a typo.
const SECRETIVE: [&str; 8] =
    ["auth", "token", "secret", "passw", "credential", "bearer", "cookie", "api_key"];

/// A line fit to be shown. A value that starts on an earlier line (a multi-line string) has no key to
/// judge it by, so that a line without one is shown only as far as it is punctuation.
pub(super) fn blot(line: &str) -> String {
    let line = line.trim_end();
    let cut = line.find('=').unwrap_or(line.len());
    let (key, value) = line.split_at(cut);
    let folded = key.to_ascii_lowercase();
    let line = if SECRETIVE.iter().any(|word| folded.contains(word)) {
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
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `http://user:password@host` without what stands between `//` and `@`.
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
