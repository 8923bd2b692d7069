//! Verifies what [`Engine`] keeps: the journal, the checkpoints, the replica, and that they fit together.

use std::{
    fmt::Display,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{Engine, OpenError, StoreDirectory, checkpoint, checkpoint::read_through, open::REPLICA};
use crate::store::{
    Settings,
    audit::VerifyError as AuditError,
    cluster,
    generation::Contents,
    log::{
        Head, StoreId,
        files::OsDirectory,
        journal::{self, Inventory},
    },
    migration,
    op::Batches,
    replica::{Replica, Table},
    verify::{self, OnProgress, Progress, Report, Stopped},
};

const JOURNAL_ADVICE: &str = "copy the store directory and check the disk. While permgate runs, `permgate \
                          store backup` still backs up everything: restore that, or else the newest \
                          backup, with `permgate store restore`";
const CHECKPOINT_ADVICE: &str = "nothing is lost as long as the replica is sound: take a backup, and check the \
                             disk; newer checkpoints replace this one";
const REPLICA_ADVICE: &str = "restart permgate: it rebuilds the replica from a checkpoint and the journal";
const CLOSED_REPLICA_ADVICE: &str =
    "move the directory sled away: the next start rebuilds it from a checkpoint and the journal";
const BACKUP_ADVICE: &str = "copy the store directory and check the disk, then restore the newest backup with \
                          `permgate store restore`: there is nothing sound to rebuild the replica from";
const COPY_ADVICE: &str =
    "stop permgate, check the disk, move the store directory away and start again: it is filled from etcd";

impl Engine {
    /// Verifies what was acknowledged when it begins; changes continue meanwhile.
    pub(crate) fn verify(&self, on_progress: &mut OnProgress<'_>) -> Result<Report, Stopped> {
        // Changes wait while the files are opened, not while they are read.
        let log = self.log.lock();
        let (acknowledged, is_copy) = (log.head, log.log.is_shared());
        let inventory = (!is_copy).then(|| Inventory::read(&OsDirectory::new(&self.generation), self.store));
        let at = self.replica.head();
        drop(log);
        let mut verifier = Verifier::new(&self.generation, self.store, on_progress);
        match inventory {
            Some(inventory) => verifier.journal(inventory, Some(acknowledged), None),
            None => verifier.copy_at(acknowledged),
        }
        verifier.checkpoints()?;
        if at != acknowledged {
            let (at, position) = (at.position, acknowledged.position);
            verifier.replica_damage(format!("it is at position {at}, but {position} was acknowledged"));
        }
        if let Some(damage) = verifier.replica(&self.replica)? {
            self.replica.mark_damaged(&damage);
        }
        Ok(verifier.report)
    }

    /// `seq` and hash of the newest audit event that was acknowledged.
    pub(crate) fn acknowledged_audit(&self) -> Result<Option<(u64, [u8; 32])>, AuditError> {
        let log = self.log.lock();
        let (state, acknowledged) = (self.replica.state(), log.head.position);
        if state.head == log.head {
            return Ok(state.audit);
        }
        let seq = state.audit.map_or(1, |(seq, _)| seq + 1);
        Err(AuditError::Behind { seq, position: state.head.position, acknowledged })
    }
}

/// Verifies a store that no process has open. Nothing is recovered, migrated or rebuilt, nor marked for it.
/// sled's files are opened as at a start: sled may cut the torn end of a damaged one.
pub fn verify_closed(
    settings: &Settings,
    on_progress: &mut OnProgress<'_>,
) -> Result<Report, verify::VerifyError> {
    let directory = StoreDirectory::open_present(&settings.path)?;
    let contents = directory.generations().read().map_err(OpenError::from)?;
    let Contents::Store { id, directory: files, .. } = contents else {
        let path = directory.path().to_owned();
        let released = migration::exists(&path);
        return Err(if released { OpenError::Released { path } } else { OpenError::Absent { path } }.into());
    };
    let mut verifier = Verifier::new(files.path(), id, on_progress);
    verifier.is_closed = true;
    let replica = Replica::open(&files.path().join(REPLICA), id);
    let at = replica.as_ref().ok().and_then(|replica| Some(replica.as_ref()?.head()));
    if cluster::is_copy(&settings.path) {
        verifier.copy_at(at.unwrap_or(Head::EMPTY));
    } else {
        verifier.journal(Inventory::read(&*files, id), None, at);
    }
    verifier.checkpoints()?;
    match replica {
        Ok(Some(replica)) => {
            verifier.check_journal_continues(replica.head());
            match replica.load(&mut |_, _| {}) {
                Ok(()) => {}
                Err(error @ OpenError::Thread(_)) => return Err(error.into()),
                Err(OpenError::Replica(what)) => verifier.replica_damage(what),
                Err(error) => verifier.replica_damage(error),
            }
            verifier.replica(&replica)?;
            replica.close();
        }
        Ok(None) => {
            verifier.report.notes.push("there is no complete replica: the next start rebuilds it".to_owned());
            if !verifier.is_copy && !verifier.can_make_replica() {
                verifier.replica_damage("it is missing");
            }
        }
        Err(OpenError::Replica(what)) => verifier.replica_damage(what),
        Err(error) => verifier.replica_damage(error),
    }
    Ok(verifier.report)
}

struct Verifier<'a, 't> {
    generation: &'a Path,
    store: StoreId,
    on_progress: &'a mut OnProgress<'t>,
    report: Report,
    /// The position of the journal's oldest entry, if the journal is intact.
    first: Option<u64>,
    /// Positions of the intact checkpoints.
    whole: Vec<u64>,
    head: Head,
    /// Whether this is a node's copy of a cluster's store, whose log is in etcd.
    is_copy: bool,
    /// Whether no process has it open. A damaged replica is not marked then, so a restart may not notice.
    is_closed: bool,
}

impl<'a, 't> Verifier<'a, 't> {
    fn new(generation: &'a Path, store: StoreId, on_progress: &'a mut OnProgress<'t>) -> Self {
        let (report, head) = (Report::default(), Head::EMPTY);
        let (first, whole) = (None, Vec::new());
        Self { generation, store, on_progress, report, first, whole, head, is_copy: false, is_closed: false }
    }

    /// Notes that there is no journal to verify.
    fn copy_at(&mut self, head: Head) {
        self.is_copy = true;
        self.report.position = head.position;
        self.report.notes.push("this is a node's copy of a cluster's store, whose log is in etcd".to_owned());
    }

    /// Verifies the journal up to `head`, or to its end. `at`: the replica's head.
    fn journal(
        &mut self,
        inventory: Result<Inventory, journal::OpenError>,
        head: Option<Head>,
        at: Option<Head>,
    ) {
        let report = &mut self.report;
        let place = self.generation.join("journal-*").display().to_string();
        let (mut entries, mut batches) = (0, Batches::default());
        let (mut begun, mut wrong) = (false, None);
        let read = inventory.and_then(|mut inventory| {
            report.journal_files = inventory.files() as u64;
            let first = inventory.oldest;
            let (head, _) = inventory.verify(head, &mut |entry| {
                entries += 1;
                match batches.entry(&entry.operations) {
                    Ok(_) => begun = true,
                    // The oldest entries may belong to a batch whose beginning was trimmed.
                    Err(_) if !begun && first > 1 => {}
                    Err(error) => {
                        let position = entry.position;
                        wrong.get_or_insert_with(|| format!("position {position}: {error}"));
                    }
                }
                if let Some(at) = at.filter(|at| at.position == entry.position && at.hash != entry.hash) {
                    let position = at.position;
                    wrong.get_or_insert_with(|| {
                        format!("position {position} is not what the replica has applied")
                    });
                }
            })?;
            report.notes.extend(inventory.recovery.notes());
            Ok((head, first))
        });
        report.journal_entries = entries;
        match (read, wrong) {
            (Ok((head, first)), None) => {
                self.head = head;
                self.first = Some(first);
            }
            (Ok((head, _)), Some(what)) => {
                self.head = head;
                report.add(place, what, JOURNAL_ADVICE);
            }
            (Err(journal::OpenError::Damaged(damage)), _) => {
                let what = format!("byte {}: {}", damage.offset, damage.what);
                report.add(damage.file.display(), what, JOURNAL_ADVICE);
            }
            (Err(error), _) => report.add(place, error, JOURNAL_ADVICE),
        }
        self.report.position = head.unwrap_or(self.head).position;
    }

    fn checkpoints(&mut self) -> Result<(), Stopped> {
        let positions = match checkpoint::list(self.generation) {
            Ok(positions) => positions,
            Err(error) => {
                self.report.add(self.generation.display(), error, CHECKPOINT_ADVICE);
                return Ok(());
            }
        };
        for position in positions {
            let path: PathBuf = checkpoint::path(self.generation, position);
            let part = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (on_progress, mut stopped) = (&mut *self.on_progress, false);
            let read = read_through(&path, self.store, &mut |rows| {
                let flow = on_progress(Progress { part: part.clone(), done: rows, of: 0 });
                stopped = flow.is_break();
                flow
            });
            if stopped {
                return Err(Stopped);
            }
            match read {
                Ok(head) if head.position == position => self.whole.push(position),
                Ok(head) => {
                    let what = format!("it is at position {}", head.position);
                    self.report.add(path.display(), what, CHECKPOINT_ADVICE);
                }
                // A newer checkpoint has replaced it meanwhile.
                Err(_) if !path.exists() => continue,
                Err(error) => self.report.add(path.display(), error, CHECKPOINT_ADVICE),
            }
            self.report.checkpoints += 1;
        }
        Ok(())
    }

    /// Checks that the journal continues from the replica's position.
    fn check_journal_continues(&mut self, at: Head) {
        let (position, end) = (at.position, self.report.position);
        match self.first {
            Some(_) if position > end => {
                let what = format!("it ends at position {end}, but position {position} was acknowledged");
                self.report.add(self.generation.join("journal-*").display(), what, JOURNAL_ADVICE);
            }
            Some(first) if at.next() < first => {
                self.replica_damage(format!(
                    "it is at position {position}, and the journal begins at {first}"
                ));
            }
            Some(_) if position < end => {
                let behind = end - position;
                self.report.notes.push(format!(
                    "the replica is {behind} changes behind the journal: the next start applies them"
                ));
            }
            _ => {}
        }
    }

    /// Returns the first damage.
    fn replica(&mut self, replica: &Replica) -> Result<Option<String>, Stopped> {
        let (path, advice) = (self.generation.join(REPLICA), self.advice());
        let (on_progress, report) = (&mut *self.on_progress, &mut self.report);
        let mut first = None;
        let outcome = replica.verify(
            &mut |table, done, of| on_progress(Progress { part: table.name().to_owned(), done, of }),
            &mut |table, what| {
                first.get_or_insert_with(|| format!("{}: {what}", table.name()));
                report.add(format!("{}: {}", path.display(), table.name()), what, advice);
            },
        );
        let ControlFlow::Continue(state) = outcome else { return Err(Stopped) };
        let tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
        self.report.tables = tables.map(|table| (table.name(), state.sum(table).rows)).collect();
        self.report.audit = state.audit;
        Ok(first)
    }

    fn replica_damage(&mut self, what: impl Display) {
        let advice = self.advice();
        self.report.add(self.generation.join(REPLICA).display(), what, advice);
    }

    /// The advice for a damaged replica.
    fn advice(&self) -> &'static str {
        match self.is_copy {
            true => COPY_ADVICE,
            false if self.can_make_replica() && self.is_closed => CLOSED_REPLICA_ADVICE,
            false if self.can_make_replica() => REPLICA_ADVICE,
            false => BACKUP_ADVICE,
        }
    }

    fn can_make_replica(&self) -> bool {
        self.first.is_some_and(|first| first == 1 || self.whole.iter().any(|position| position + 1 >= first))
    }
}

#[cfg(test)]
mod tests;
