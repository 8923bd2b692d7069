//! Bulk import of tokens by digest, with their owners and groups, from NDJSON. It can be resumed, and
//! reports every bad line. [`offline`] writes directly into a store that is not being served.

use std::{
    io::{self, BufRead},
    ops::RangeInclusive,
    sync::Arc,
    thread::{self, Scope, ScopedJoinHandle},
};

use super::{
    ChangeError, Configuration, OpenError, Settings,
    change::{Actor, ActorKind, NewUser},
    engine::{CommitError, Engine},
    load,
    op::Op,
    write::new_id,
    writer::Transaction,
};
use crate::authz::{
    accounts::fold,
    administration::{AdminError, AdminErrorCode, Principal, names, users},
    secret::TokenId,
    time::Timestamp,
};

mod line;

pub use line::ImportRecord;

pub struct Options {
    /// Whether to create missing owners and members, as service users.
    pub make_owners: bool,
    /// With the services that scopes may name.
    pub configuration: Configuration,
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
    #[error("the system has no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(
        "the store accepted no more after line {line}: {why}; once that is fixed, run the import again: it continues where it stopped"
    )]
    Commit { line: u64, why: String },
}

/// Operations per commit. The more, the more of them fall into one node of sled; each takes a kilobyte of memory
/// until the commit after it ends. Fewer, if the commit before has ended by then: one is planned meanwhile.
const CHUNK: RangeInclusive<usize> = 20_000..=100_000;

/// Maximum bytes of a line.
const MAX_LINE: u64 = 1 << 20;

/// Imports into the store at `settings.path`, which is created if it is missing. A line that was imported
/// before is skipped, so that a second run resumes an interrupted one.
pub fn offline(
    settings: &Settings,
    options: Options,
    input: impl BufRead,
    on_event: &mut dyn FnMut(ImportEvent<'_>),
) -> Result<Report, ImportError> {
    offline_in_chunks(CHUNK, settings, options, input, on_event)
}

fn offline_in_chunks(
    chunk: RangeInclusive<usize>,
    settings: &Settings,
    options: Options,
    input: impl BufRead,
    on_event: &mut dyn FnMut(ImportEvent<'_>),
) -> Result<Report, ImportError> {
    let Options { make_owners, configuration, now } = options;
    let mut random = Ok(());
    let id = TokenId::generate(&mut |bytes| random = getrandom::fill(bytes));
    random.map_err(ImportError::Random)?;
    let engine = Engine::open_unloaded(settings)?;
    let (tx, _) = load::transaction(engine, configuration, Arc::new(move || now), None)?;
    let actor = Actor::new(ActorKind::Operator);
    let principal = Principal::operator(&tx.state.rules);
    let engine = tx.shared.engine.clone();
    let (report, planned) = (Report::default(), Report::default());
    let import = Import { tx, actor, principal, make_owners, id, report, planned };
    let outcome = thread::scope(|scope| import.run(scope, &engine, &chunk, input, on_event));
    engine.close();
    outcome
}

/// Plans lines as the writer plans the same changes of the API, in batches that are as large as an import
/// needs.
struct Import {
    tx: Transaction,
    actor: Actor,
    principal: Principal<'static>,
    make_owners: bool,
    /// The last token's id. They follow each other: last uses are stored by id, and random ones in many
    /// places.
    id: TokenId,
    report: Report,
    /// The report up to the batch that is being planned.
    planned: Report,
}

impl Import {
    /// Commits one batch while it plans the next.
    fn run<'scope>(
        mut self,
        scope: &'scope Scope<'scope, '_>,
        engine: &'scope Engine,
        chunk: &RangeInclusive<usize>,
        mut input: impl BufRead,
        on_event: &mut dyn FnMut(ImportEvent<'_>),
    ) -> Result<Report, ImportError> {
        let mut underway: Option<Commit<'_>> = None;
        let mut text = Vec::new();
        let outcome = loop {
            let number = self.report.lines + 1;
            let read = match next_line(&mut input, &mut text) {
                Ok(0) => break Ok(()),
                Ok(read) => read,
                Err(source) => break Err(ImportError::Input { line: number, source }),
            };
            self.report.lines = number;
            self.report.bytes += read;
            match self.line(&text) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    self.report.bad += 1;
                    on_event(ImportEvent::BadLine { number, why: &why });
                }
                Err(error) => break Err(error),
            }
            let planned = self.tx.batch.ops.len();
            let waits = || underway.as_ref().is_some_and(|before| !before.handle.is_finished());
            if planned >= *chunk.end() || (planned >= *chunk.start() && !waits()) {
                if let Some(before) = underway.take() {
                    on_event(ImportEvent::Progress(&before.join()?));
                }
                match self.commit(scope, engine) {
                    Ok(commit) => underway = Some(commit),
                    Err(error) => break Err(error),
                }
            }
        };
        // Also after an error: what the store had begun to accept comes before it.
        if let Some(before) = underway.take() {
            on_event(ImportEvent::Progress(&before.join()?));
        }
        outcome?;
        if !self.tx.batch.ops.is_empty() {
            self.commit(scope, engine)?.join()?;
        }
        on_event(ImportEvent::Progress(&self.report));
        Ok(self.report)
    }

    /// Begins to commit what was planned. The commit before must have ended.
    fn commit<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        engine: &'scope Engine,
    ) -> Result<Commit<'scope>, ImportError> {
        let upto = self.report;
        let before = std::mem::replace(&mut self.planned, upto);
        let change = serde_json::json!({
            "tokens": upto.tokens - before.tokens,
            "users": upto.users - before.users,
            "groups": upto.groups - before.groups,
            "members": upto.members - before.members,
        });
        self.tx.audit_as(&self.actor, "token.import", "tokens".into(), Some(change));
        if let Some(error) = self.tx.failed.take() {
            return Err(ImportError::Commit { line: before.lines, why: error.to_string() });
        }
        let batch = Arc::new(std::mem::take(&mut self.tx.batch));
        // Growing would copy all operations several times.
        self.tx.batch.ops.reserve(batch.ops.len());
        self.tx.index(&batch);
        self.tx.committing = Some(batch.clone());
        Ok(Commit {
            after: before.lines,
            upto,
            handle: scope.spawn(move || engine.append(&batch.ops, &batch.staged)),
        })
    }

    /// Plans a line. The inner error is the message for the operator about a bad one.
    fn line(&mut self, text: &[u8]) -> Result<Result<(), String>, ImportError> {
        let line = text.trim_ascii();
        if line.is_empty() {
            return Ok(Ok(()));
        }
        if text.len() as u64 > MAX_LINE {
            return Ok(Err(format!("it is longer than {MAX_LINE} bytes")));
        }
        let record = match ImportRecord::parse(line) {
            Ok(record) => record,
            Err(why) => return Ok(Err(why)),
        };
        let planned = self.tx.batch.ops.len();
        let outcome = self.record(record);
        let new = &self.tx.batch.ops[planned..];
        for op in new {
            match op {
                Op::PutToken(_) => self.report.tokens += 1,
                Op::PutUser(_) => self.report.users += 1,
                Op::PutGroup(_) => self.report.groups += 1,
                Op::PutMember { .. } => self.report.members += 1,
                _ => {}
            }
        }
        let why = match (outcome, self.tx.failed.take()) {
            (Ok(()), None) => {
                self.report.skipped += u64::from(new.is_empty());
                return Ok(Ok(()));
            }
            (Err(ChangeError::Refused(refusal)), None) => return Ok(Err(refusal.message)),
            (_, Some(error)) => error.to_string(),
            (Err(error), None) => error.to_string(),
        };
        Err(ImportError::Commit { line: self.planned.lines, why })
    }

    fn record(&mut self, record: ImportRecord) -> Result<(), ChangeError> {
        let Self { tx, actor, principal, make_owners, id, .. } = self;
        match record {
            ImportRecord::Token(token) => {
                *id = id.successor();
                tx.import_token(actor, principal, &token, *id, make_owners.then_some(new_id)).map(drop)
            }
            ImportRecord::User { login, name, kind } => {
                if tx.state.accounts.user_by_login(&login).is_some() {
                    return Ok(());
                }
                let name = name.unwrap_or_else(|| login.clone());
                let new = NewUser { login, name, email: None, kind, password: None };
                tx.create_user(actor, &new, &new_id()).map(drop)
            }
            ImportRecord::Group { name, members } => self.group(&name, &members),
        }
    }

    fn group(&mut self, name: &str, members: &[String]) -> Result<(), ChangeError> {
        let Self { tx, actor, make_owners, .. } = self;
        let name = names::group(name)?;
        if fold(&name) == "all-users" {
            let message = "every user is in the group all-users anyway: leave the line out";
            return Err(AdminError::new(AdminErrorCode::InvalidValue, message).into());
        }
        let unknown = |tx: &Transaction, login: &str| tx.state.accounts.user_by_login(login).is_none();
        // All members first, so that nothing changes if one of them is unknown or cannot be created.
        for login in members {
            if *make_owners && unknown(tx, login) {
                names::login(login)?;
            } else {
                users::find(&tx.state.accounts, login)?;
            }
        }
        for login in members {
            if unknown(tx, login) {
                tx.make_owner(actor, login, &new_id())?;
            }
        }
        if tx.state.accounts.group_by_name(&name).is_none() {
            tx.create_group(actor, &name, None, &new_id())?;
        }
        for login in members {
            tx.set_member(actor, &name, login, true)?;
        }
        Ok(())
    }
}

/// A batch that is being committed.
struct Commit<'scope> {
    /// The last line before this batch.
    after: u64,
    /// The report including this batch.
    upto: Report,
    handle: ScopedJoinHandle<'scope, Result<(), CommitError>>,
}

impl Commit<'_> {
    fn join(self) -> Result<Report, ImportError> {
        let Self { after, upto, handle } = self;
        let outcome = handle.join();
        let outcome = outcome.unwrap_or_else(|_| Err(CommitError::Failed("the store panicked".to_owned())));
        outcome.map(|()| upto).map_err(|error| ImportError::Commit { line: after, why: error.to_string() })
    }
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
