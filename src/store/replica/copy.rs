//! A consistent copy while changes continue: the rows as they were when the copy began. sled has no
//! snapshots, so a commit sets aside the rows that it overwrites and that the copy has not reached.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Replica, Trees, keys, keys::Key, stage::Rows, tables::Table};
use crate::store::{ReadError, log::Head, op::tag};

/// The progress of a copy through the rows, table by table.
pub(super) struct CopyProgress {
    number: u64,
    /// The last row that was copied; `None` before the first.
    done: Option<(Table, Key)>,
    /// Rows that are still to be copied, as they were before a change; `None`: absent.
    before: BTreeMap<(Table, Key), Option<Vec<u8>>>,
}

/// A copy in progress, which ends when it is dropped.
pub(crate) struct ReplicaCopy<'a> {
    replica: &'a Replica,
    number: u64,
    /// The head as of which it is.
    pub head: Head,
}

/// A row, as it was when the copy began.
pub(super) type CopiedRow = (Table, Key, Vec<u8>);

/// Rows that are read in one go; a commit may run in between.
const SLICE: usize = 256;

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Replica {
    /// Begins a copy of the current state.
    pub(crate) fn copy(&self) -> ReplicaCopy<'_> {
        self.copy_with(|| ()).0
    }

    /// Like [`Replica::copy`], with what `now` reads at the same moment.
    pub(super) fn copy_with<T>(&self, now: impl FnOnce() -> T) -> (ReplicaCopy<'_>, T) {
        let mut copying = self.copying.lock();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        copying.push(CopyProgress { number, done: None, before: BTreeMap::new() });
        (ReplicaCopy { replica: self, number, head: self.head() }, now())
    }
}

impl ReplicaCopy<'_> {
    /// The next rows as encoded operations; empty at the end.
    pub(crate) fn next(&mut self, ops: &mut Vec<Vec<u8>>) -> Result<(), ReadError> {
        ops.clear();
        while ops.is_empty() {
            let rows = self.rows()?;
            if rows.is_empty() {
                break;
            }
            ops.extend(rows.iter().filter_map(|(table, key, row)| operation(*table, key, row)));
        }
        Ok(())
    }

    /// The next rows, table by table, in the order of keys; empty at the end. After an error, the next call
    /// tries the same rows again, unless [`ReplicaCopy::skip_table`] skips the table.
    pub(super) fn rows(&mut self) -> Result<Vec<CopiedRow>, ReadError> {
        loop {
            let (rows, last) =
                self.replica.read(|trees| match self.copying(|copying| copying.slice(trees)) {
                    Some(slice) => slice,
                    None => Ok((Vec::new(), true)),
                })?;
            if last || !rows.is_empty() {
                return Ok(rows);
            }
        }
    }

    /// Skips the rest of the table that is being read, and returns that table.
    pub(super) fn skip_table(&mut self) -> Option<Table> {
        self.copying(|copying| {
            let table = copying.done.as_ref().map_or(Table::Meta, |(table, _)| *table);
            copying.done = Some(match Table::ALL.get(table as usize + 1) {
                Some(next) => (*next, Key::new()),
                None => (table, END.to_vec()),
            });
            copying.before.retain(|(of, _), _| *of > table);
            table
        })
    }

    fn copying<T>(&self, work: impl FnOnce(&mut CopyProgress) -> T) -> Option<T> {
        let mut copying = self.replica.copying.lock();
        copying.iter_mut().find(|one| one.number == self.number).map(work)
    }
}

/// Sorts after every key.
const END: [u8; 64] = [u8::MAX; 64];

impl CopyProgress {
    /// Must be called before the rows change.
    pub(super) fn keep(&mut self, changing: &[Rows; Table::ALL.len()]) {
        for (table, rows) in Table::ALL.into_iter().zip(changing) {
            for (key, row) in rows {
                let place = (table, key.clone());
                if self.done.as_ref().is_none_or(|done| place > *done) {
                    let before = || row.before.as_ref().map(|row| row.to_vec());
                    self.before.entry(place).or_insert_with(before);
                }
            }
        }
    }

    /// The next rows as they were, and whether they are the last.
    fn slice(&mut self, trees: &Trees) -> Result<(Vec<CopiedRow>, bool), super::ReplicaError> {
        let (table, from) = match self.done.clone() {
            None => (Table::Meta, Bound::Unbounded),
            Some((table, key)) => (table, Bound::Excluded(key)),
        };
        let mut rows: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        for row in trees.tree(table).range::<Key, _>((from, Bound::Unbounded)).take(SLICE) {
            let (key, row) = row?;
            rows.insert(key.to_vec(), Some(row.to_vec()));
        }
        let next_table = Table::ALL.get(table as usize + 1).copied();
        let full = rows.len() == SLICE;
        let end = match (rows.last_key_value(), full) {
            (Some((end, _)), true) => Some((table, [end.as_slice(), &[0]].concat())),
            _ => next_table.map(|next| (next, Key::new())),
        };
        let ahead = end.as_ref().map(|end| self.before.split_off(end)).unwrap_or_default();
        for ((_, key), row) in std::mem::replace(&mut self.before, ahead) {
            rows.insert(key, row);
        }
        let last = !full && next_table.is_none();
        // The empty key marks a table's beginning: no row has it.
        self.done = match (full, next_table) {
            (true, _) => rows.last_key_value().map(|(key, _)| (table, key.clone())),
            (false, Some(next)) => Some((next, Key::new())),
            (false, None) => Some((table, END.to_vec())),
        };
        Ok((rows.into_iter().filter_map(|(key, row)| Some((table, key, row?))).collect(), last))
    }
}

impl Drop for ReplicaCopy<'_> {
    fn drop(&mut self) {
        let mut copying = self.replica.copying.lock();
        copying.retain(|copying| copying.number != self.number);
    }
}

/// The encoded operation that restores a row.
fn operation(table: Table, key: &[u8], row: &[u8]) -> Option<Vec<u8>> {
    let (tag, first) = match table {
        Table::Meta if key == super::tables::AUDIT_START => (tag::TRIM_AUDIT, &[][..]),
        Table::Meta if keys::is_node(key) => (tag::NODE, &[][..]),
        Table::Tokens => (tag::PUT_TOKEN, key),
        Table::Uses => (tag::PUT_LAST_USED, key),
        Table::Users => (tag::PUT_USER, &[][..]),
        Table::Groups => (tag::PUT_GROUP, &[][..]),
        Table::Members => (tag::PUT_MEMBER, key),
        Table::Roles => (tag::PUT_ROLE, &[][..]),
        Table::Grants => (tag::PUT_GRANT, &[][..]),
        Table::IdentityCache => (tag::PUT_IDENTITY, &[][..]),
        Table::Sessions => (tag::PUT_SESSION, &[][..]),
        Table::Invitations => (tag::PUT_INVITATION, &[][..]),
        Table::Idempotency => (tag::PUT_IDEMPOTENCY, &[][..]),
        Table::Audit => (tag::APPEND_AUDIT, &[][..]),
        Table::Meta => return None,
    };
    Some([&[tag], first, row].concat())
}
