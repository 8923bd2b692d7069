//! The configuration that is being read, with the problems found so far.

use std::{
    cell::{OnceCell, RefCell},
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
};

use super::{
    environment::{Overrides, VariableLocation},
    mask::{continued_secrets, mask_secrets, without_user_info},
    problem::{Errors, Problem},
};
use crate::{
    authz::{rules::Origin, secret::redact},
    settings::{NoSystemRoots, SystemRoots},
};

pub(super) struct Document<'t> {
    name: Arc<str>,
    text: &'t str,
    overrides: &'t Overrides,
    pub(super) references: References,
    /// The directory to which paths are relative.
    pub(super) directory: &'t Path,
    system_roots: OnceCell<Result<SystemRoots, NoSystemRoots>>,
    continued_secrets: OnceCell<Vec<bool>>,
    /// The offset at which each line begins: every service and rule has its line.
    line_starts: OnceCell<Vec<usize>>,
    /// The line shown last and its excerpt: a line of a megabyte may have thousands of problems.
    last_excerpt: RefCell<(u32, String)>,
    found: RefCell<Diagnostics>,
}

/// Whether the files and environment variables that a text names are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum References {
    Read,
    /// The author of the text must not learn which ones exist.
    Ignored,
}

/// The problems found, each list in the order of the file.
#[derive(Default)]
pub(super) struct Diagnostics {
    pub(super) errors: Vec<Problem>,
    pub(super) exposed_secrets: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The number of errors, and that of warnings, that are reported. Whoever may check a text must not make
/// this take long.
const MAX_PROBLEMS: usize = 1000;

/// The longest excerpt of a line, in characters.
const MAX_EXCERPT: usize = 200;

/// The longest message and the longest advice, in characters. Both may quote a key of a megabyte.
const MAX_TEXT: usize = 1000;

impl<'t> Document<'t> {
    pub(super) fn new(
        path: &'t Path,
        text: &'t str,
        overrides: &'t Overrides,
        references: References,
    ) -> Self {
        Self {
            name: path.display().to_string().into(),
            text,
            overrides,
            references,
            directory: path.parent().unwrap_or(Path::new("")),
            system_roots: OnceCell::new(),
            continued_secrets: OnceCell::new(),
            line_starts: OnceCell::new(),
            last_excerpt: RefCell::default(),
            found: RefCell::default(),
        }
    }

    /// The system's authorities, loaded when first used.
    pub(super) fn system_roots(&self) -> &Result<SystemRoots, NoSystemRoots> {
        self.system_roots.get_or_init(SystemRoots::load)
    }

    /// The place of a rule.
    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        match self.overrides.location(span.start) {
            Some(location) => Origin { file: location.variable.clone(), line: 1 },
            None => Origin { file: self.name.clone(), line: self.line(span.start) },
        }
    }

    pub(super) fn error(&self, span: &Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        if self.found.borrow().errors.len() < MAX_PROBLEMS {
            let problem = self.locate(span, &message.into(), &advice.into());
            self.found.borrow_mut().errors.push(problem);
        }
    }

    pub(super) fn warn(&self, span: &Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        if self.found.borrow().warnings.len() < MAX_PROBLEMS {
            let problem = self.locate(span, &message.into(), &advice.into());
            self.found.borrow_mut().warnings.push(problem);
        }
    }

    /// Whether so many errors were found that no more are reported.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().errors.len() >= MAX_PROBLEMS
    }

    /// Reports a file with a secret if users other than its owner and group can read or change it.
    pub(super) fn require_private(&self, span: &Range<usize>, path: &Path) {
        let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
        if self.references == References::Read && mode & 0o006 != 0 {
            let message = format!(
                "every user of this machine can read or change {}, which holds a secret (mode {mode:04o})",
                path.display()
            );
            let advice = "run `chmod 600` on it, or 640 with a dedicated group, and replace the secret";
            let problem = self.locate(span, &message, advice);
            self.found.borrow_mut().exposed_secrets.push(problem);
        }
    }

    /// Reports an error in a rule of which only the line is known.
    pub(super) fn error_at(&self, origin: &Origin, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        if let Some(span) = self.overrides.span(&origin.file) {
            return self.error(&span, message, "");
        }
        let index = usize::try_from(origin.line).unwrap_or(usize::MAX).saturating_sub(1);
        let start = self.text.split_inclusive('\n').take(index).map(str::len).sum::<usize>();
        let written = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let indent = written.len() - written.trim_start().len();
        self.error(&(start + indent..start + written.trim_end().len()), message, "");
    }

    /// The first `syntax` errors are those of the syntax. Drops those of them that follow another one with no
    /// sound line between them: after a quote or bracket that is not closed, every line has one. Drops other
    /// errors on all of these lines.
    pub(super) fn drop_consequences(&self, syntax: usize) {
        // Then not even those of the syntax may all be there.
        if self.is_full() {
            return;
        }
        let errors = &mut self.found.borrow_mut().errors;
        errors[..syntax].sort_by_key(|p| (p.line, p.column));
        let broken: Vec<u32> = errors[..syntax].iter().map(|p| p.line).collect();
        let written: Vec<&str> = if syntax > 1 { self.text.lines().collect() } else { Vec::new() };
        let is_sound = |line: u32| {
            let line = usize::try_from(line).ok().and_then(|line| written.get(line - 1));
            line.is_some_and(|line| !matches!(line.trim_start().bytes().next(), None | Some(b'#')))
        };
        let mut index = 0;
        errors.retain(|p| {
            index += 1;
            match broken.get(index - 1) {
                Some(line) if index > 1 => (broken[index - 2] + 1..*line).any(is_sound),
                Some(_) => true,
                None => !broken.contains(&p.line),
            }
        });
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        let mut found = self.found.take();
        let lists =
            [(&mut found.errors, true), (&mut found.warnings, true), (&mut found.exposed_secrets, false)];
        for (problems, is_limited) in lists {
            problems.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
            let is_full = is_limited && problems.len() >= MAX_PROBLEMS;
            problems.dedup();
            if is_full {
                let rest = "there may be more than these: only the first ones found are reported".to_owned();
                problems.extend(Errors::in_file(&self.name, rest, "").0);
            }
        }
        found
    }

    fn locate(&self, span: &Range<usize>, message: &str, advice: &str) -> Problem {
        let (file, (line, column), excerpt, meant) = match self.overrides.location(span.start) {
            Some(VariableLocation { variable, line, offset }) => {
                let (before, meant) = line.split_at(line.floor_char_boundary(offset));
                let meant = &meant[..meant.floor_char_boundary(span.len())];
                let column = u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX);
                (variable, (1, column), shortened(&mask_secrets(line)), meant)
            }
            None => {
                let meant = self.text.get(span.clone()).unwrap_or_default();
                let (line, column) = self.position(span.start);
                (&self.name, (line, column), self.excerpt(line, span.start), meant)
            }
        };
        let width = meant.lines().next().unwrap_or_default().chars().count().max(1);
        Problem {
            file: file.clone(),
            line,
            column,
            excerpt,
            width: u32::try_from(width).unwrap_or(u32::MAX),
            // Both may quote the value.
            message: masked_text(message),
            advice: masked_text(advice),
        }
    }

    /// The line of the file at an offset, fit to be shown.
    fn excerpt(&self, number: u32, offset: usize) -> String {
        let mut last = self.last_excerpt.borrow_mut();
        if last.0 != number {
            let continued = self.continued_secrets.get_or_init(|| continued_secrets(self.text));
            let index = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
            let written = self.text[self.line_start(offset)..].lines().next().unwrap_or_default();
            let shown = match continued.get(index) {
                Some(true) => "...".to_owned(),
                Some(false) | None => shortened(&mask_secrets(written)),
            };
            *last = (number, shown);
        }
        last.1.clone()
    }

    fn line(&self, offset: usize) -> u32 {
        let line = self.line_starts().partition_point(|start| *start <= self.floor(offset));
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn position(&self, offset: usize) -> (u32, u32) {
        let column = self.text[self.line_start(offset)..self.floor(offset)].chars().count() + 1;
        (self.line(offset), u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn line_start(&self, offset: usize) -> usize {
        self.text[..self.floor(offset)].rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_starts(&self) -> &[usize] {
        self.line_starts.get_or_init(|| {
            let ends = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        })
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }
}

/// A message fit to be shown. Masks more than it keeps, so that no secret is cut before its end.
fn masked_text(text: &str) -> String {
    let masked = match text.char_indices().nth(4 * MAX_TEXT) {
        // The password whose `@` was cut off is masked because of this one.
        Some((end, _)) => without_user_info(&format!("{}@", &text[..end])),
        None => without_user_info(text),
    };
    redact(&masked).chars().take(MAX_TEXT).collect()
}

fn shortened(line: &str) -> String {
    line.chars().take(MAX_EXCERPT).collect()
}
