//! A consistent copy while changes go on: the rows as they were when the copy began. sled has no
//! snapshots, so that a commit puts aside what it overwrites and the copy has not reached.

use std::{collections::BTreeMap, ops::Bound, sync::PoisonError};

use super::{Damage, Embedded, keys::Key};
use crate::store::ReadError;

/// A copy on its way through the keys, in their order.
#[derive(Default)]
pub(super) struct Copying {
    /// The last key that was copied.
    done: Option<Key>,
    /// Rows ahead as they were; `None` was not there.
    before: BTreeMap<Key, Option<Vec<u8>>>,
}

/// Ends the copy however it ends.
struct Ending<'a>(&'a Embedded);

/// Rows between two chances for a commit.
const SLICE: usize = 256;

impl Embedded {
    /// Every row as of now, in slices; one copy at a time. `visit` answers whether to go on.
    pub(crate) fn copy(
        &self,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> std::ops::ControlFlow<()>,
    ) -> Result<(), ReadError> {
        {
            let mut copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
            if copying.is_some() {
                return Err(ReadError("a backup is being taken already".to_owned()));
            }
            *copying = Some(Copying::default());
        }
        let _ending = Ending(self);
        loop {
            let (rows, last) = self.read(|db| {
                let mut copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
                copying.as_mut().map_or(Ok((Vec::new(), true)), |copying| copying.slice(db))
            })?;
            if rows.iter().any(|(key, row)| visit(key, row).is_break()) || last {
                return Ok(());
            }
        }
    }
}

impl Copying {
    /// To be called before the rows change.
    pub(super) fn keep<'a>(
        &mut self,
        db: &sled::Db,
        changing: impl Iterator<Item = &'a Key>,
    ) -> Result<(), Damage> {
        for key in changing.filter(|key| self.done.as_ref().is_none_or(|done| *key > done)) {
            if !self.before.contains_key(key) {
                let row = db.get(key)?;
                self.before.insert(key.clone(), row.map(|row| row.to_vec()));
            }
        }
        Ok(())
    }

    /// The next rows as they were, and whether they are the last.
    fn slice(&mut self, db: &sled::Db) -> Result<(Vec<(Key, Vec<u8>)>, bool), Damage> {
        let from = self.done.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        for row in db.range::<Key, _>((from, Bound::Unbounded)).take(SLICE) {
            let (key, row) = row?;
            rows.insert(key.to_vec(), Some(row.to_vec()));
        }
        let last = rows.len() < SLICE;
        let ahead = match rows.last_key_value() {
            Some((end, _)) if !last => self.before.split_off(&[end.as_slice(), &[0]].concat()),
            _ => BTreeMap::new(),
        };
        self.done = rows.last_key_value().map(|(end, _)| end.clone()).or(self.done.take());
        rows.append(&mut std::mem::replace(&mut self.before, ahead));
        Ok((rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect(), last))
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        *self.0.copying.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
