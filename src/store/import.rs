//! Bulk import of tokens by digest, with their owners and groups, from NDJSON. It can be resumed, and
//! reports every bad line. [`offline`] writes directly into a store that is not being served.

use std::{
    io::{self, BufRead},
    thread::{self, Scope, ScopedJoinHandle},
};

use crate::{
    authz::time::Timestamp,
    store::{
        OpenError, ReadError, Settings,
        engine::{CommitError, Engine},
        load,
        model::AuditEvent,
        op::Op,
    },
};

mod line;
mod plan;

pub use line::ImportRecord;

use plan::{Outcome, Plan};

pub struct Options<'a> {
    /// Whether to create missing owners and members, as service users.
    pub make_owners: bool,
    /// Whether the configuration has a service with this key.
    pub has_service: &'a dyn Fn(&str) -> bool,
    pub now: Timestamp,
}

/// What an import has done, so far or in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub lines: u64,
    /// Bytes of the input, including line ends.
    pub bytes: u64,
    pub tokens: u64,
    pub users: u64,
    pub groups: u64,
    pub members: u64,
    /// Lines whose digest, user or group with these members existed already.
    pub skipped: u64,
    pub bad: u64,
}

/// An event during an import.
#[derive(Debug)]
pub enum ImportEvent<'a> {
    /// Durable up to here.
    Progress(&'a Report),
    /// The line is skipped; the import continues.
    BadLine { number: u64, why: &'a str },
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the import file at line {line}")]
    Input {
        line: u64,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "the store accepted no more after line {line}: {why}; once that is fixed, run the import again: it continues where it stopped"
    )]
    Commit { line: u64, why: String },
}

/// Operations per commit: few enough to keep sled's garbage small, many enough that syncs cost little.
const CHUNK: usize = 30_000;

/// Maximum bytes of a line.
const MAX_LINE: u64 = 1 << 20;

/// Imports into the store at `settings.path`, which is created if it is missing. A line that was imported
/// before is skipped, so that a second run resumes an interrupted one.
pub fn offline(
    settings: &Settings,
    options: &Options<'_>,
    input: impl BufRead,
    on_event: &mut dyn FnMut(ImportEvent<'_>),
) -> Result<Report, ImportError> {
    offline_in_chunks(CHUNK, settings, options, input, on_event)
}

fn offline_in_chunks(
    chunk: usize,
    settings: &Settings,
    options: &Options<'_>,
    input: impl BufRead,
    on_event: &mut dyn FnMut(ImportEvent<'_>),
) -> Result<Report, ImportError> {
    let engine = Engine::open(settings)?;
    let outcome = thread::scope(|scope| run(scope, &engine, chunk, options, input, on_event));
    engine.close();
    outcome
}

/// Commits one batch while it reads the next.
fn run<'scope>(
    scope: &'scope Scope<'scope, '_>,
    engine: &'scope Engine,
    chunk: usize,
    options: &Options<'_>,
    mut input: impl BufRead,
    on_event: &mut dyn FnMut(ImportEvent<'_>),
) -> Result<Report, ImportError> {
    let mut audit = load::begin(engine, options.now)?;
    let mut plan = Plan::new(engine, options)?;
    let mut report = Report::default();
    let mut planned = report;
    let mut commit = |plan: &mut Plan<'_>, upto: Report| {
        let mut ops = plan.drain();
        ops.push(Op::AppendAudit(audit.append(event(&planned, &upto, options.now))));
        planned = upto;
        Commit { upto, handle: scope.spawn(move || engine.commit(&ops)) }
    };
    let mut underway: Option<Commit<'_>> = None;
    let mut text = Vec::new();
    loop {
        let number = report.lines + 1;
        let read = next_line(&mut input, &mut text);
        let read = read.map_err(|source| ImportError::Input { line: number, source })?;
        if read == 0 {
            break;
        }
        report.lines = number;
        report.bytes += read;
        let line = text.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let taken = if text.len() as u64 > MAX_LINE {
            Err(format!("it is longer than {MAX_LINE} bytes"))
        } else {
            ImportRecord::parse(line).and_then(|line| plan.add(line, &mut report))
        };
        match taken {
            Ok(Outcome::Added) => {}
            Ok(Outcome::Skipped) => report.skipped += 1,
            Err(why) => {
                report.bad += 1;
                on_event(ImportEvent::BadLine { number, why: &why });
            }
        }
        if plan.planned() >= chunk {
            if let Some(before) = underway.take() {
                on_event(ImportEvent::Progress(&before.join()?));
            }
            underway = Some(commit(&mut plan, report));
        }
    }
    if let Some(before) = underway.take() {
        on_event(ImportEvent::Progress(&before.join()?));
    }
    if plan.planned() > 0 {
        commit(&mut plan, report).join()?;
    }
    on_event(ImportEvent::Progress(&report));
    Ok(report)
}

/// A batch that is being committed.
struct Commit<'scope> {
    /// The report including this batch.
    upto: Report,
    handle: ScopedJoinHandle<'scope, Result<(), CommitError>>,
}

impl Commit<'_> {
    fn join(self) -> Result<Report, ImportError> {
        let Self { upto, handle } = self;
        let outcome = handle.join();
        let outcome = outcome.unwrap_or_else(|_| Err(CommitError::Failed("the store panicked".to_owned())));
        outcome
            .map(|()| upto)
            .map_err(|error| ImportError::Commit { line: upto.lines, why: error.to_string() })
    }
}

/// The audit event of a batch, with its counts.
fn event(before: &Report, report: &Report, now: Timestamp) -> AuditEvent {
    let change = serde_json::json!({
        "tokens": report.tokens - before.tokens,
        "users": report.users - before.users,
        "groups": report.groups - before.groups,
        "members": report.members - before.members,
    });
    AuditEvent::new(now, "token.import", "operator", "tokens", change)
}

/// Reads a line and returns its bytes. The excess of a line beyond [`MAX_LINE`] is read, but not kept.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut read = io::Read::take(&mut *input, MAX_LINE + 1).read_until(b'\n', line)?;
    if line.len() as u64 > MAX_LINE && line.last() != Some(&b'\n') {
        read += input.skip_until(b'\n')?;
    }
    Ok(read as u64)
}

#[cfg(test)]
mod tests;
