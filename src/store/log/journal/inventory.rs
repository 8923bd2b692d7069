//! Opens the files of a journal and verifies everything in them. Changes nothing.

use std::path::{Path, PathBuf};

use super::{
    OpenError, Recovery,
    layout::{self, BLOCK, FileName, Header, SLOTS, Slot},
    open::Dropped,
    scan::{Scan, ScanError},
};
use crate::store::log::{
    Entry, Failure, Head, LogCorruption, StoreId,
    files::{Directory, File},
};

/// The opened files of a journal. Later appends and removals do not disturb `verify`.
pub struct Inventory {
    /// Files that accept no more batches, oldest first.
    pub(super) full: Vec<JournalFile>,
    pub(super) last: JournalFile,
    covered: Slot,
    /// The position of the oldest entry that can be read.
    pub oldest: u64,
    /// Numbers of files that were removed, but may have been brought back by a crash.
    pub(super) resurrected: Vec<u64>,
    /// Names of unfinished files.
    pub(super) unfinished: Vec<String>,
    /// The findings that an operator may want to know.
    pub recovery: Recovery,
}

/// Called with every entry, in order.
pub type EntryVisitor<'v> = dyn FnMut(&Entry) + 'v;

impl Inventory {
    /// Reads the header of each file, and the position slots of the last one.
    pub fn read(directory: &dyn Directory, store: StoreId) -> Result<Self, OpenError> {
        let (sequences, unfinished) = list(directory)?;
        let mut full = Vec::new();
        for sequence in sequences {
            full.push(JournalFile::read(directory, sequence, store)?);
        }
        let Some(last) = full.pop() else {
            return Err(OpenError::Absent { directory: directory.path().to_owned() });
        };
        let mut recovery = Recovery::default();
        let covered = last.newest_slot(&mut recovery)?;
        let resurrected = take_resurrected(&mut full, &last, covered.oldest)?;
        let first = full.first().unwrap_or(&last);
        let oldest = first.header.after.next();
        if oldest > covered.oldest {
            let began = covered.oldest;
            let what =
                format!("the journal began at position {began}, and the file before this one is missing");
            return Err(first.damage(0, what).into());
        }
        Ok(Self { full, last, covered, oldest, resurrected, unfinished, recovery })
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.full.len() + 1
    }

    /// Reads every entry up to the newest; returns that one, and where it ends in the last file. `head`: the
    /// acknowledged head, if it is known. What follows it is ignored, since it may be being written.
    pub fn verify(
        &mut self,
        head: Option<Head>,
        visit: &mut EntryVisitor<'_>,
    ) -> Result<(Head, u64), OpenError> {
        for (at, found) in self.full.iter().enumerate() {
            let next = &self.full.get(at + 1).unwrap_or(&self.last).header;
            found.verify_full(next, visit)?;
        }
        self.last.verify_last(self.covered, head, &mut self.recovery, visit)
    }
}

/// A journal file whose header is intact and of this store.
pub(super) struct JournalFile {
    pub header: Header,
    file: Box<dyn File>,
    pub path: PathBuf,
}

/// The numbers of the files in order, and the names of unfinished files.
pub(super) fn list(directory: &dyn Directory) -> Result<(Vec<u64>, Vec<String>), Failure> {
    let (mut sequences, mut unfinished) = (Vec::new(), Vec::new());
    for name in directory.names()? {
        match FileName::parse(&name) {
            Some(FileName::File(sequence)) => sequences.push(sequence),
            Some(FileName::Unfinished) => unfinished.push(name),
            None => {}
        }
    }
    sequences.sort_unstable();
    Ok((sequences, unfinished))
}

/// Takes out files that were removed, but that a crash may have brought back: those with nothing from
/// `oldest` on, and those that a later file replaces, since it begins at the same position. Returns their
/// numbers.
fn take_resurrected(
    files: &mut Vec<JournalFile>,
    last: &JournalFile,
    oldest: u64,
) -> Result<Vec<u64>, LogCorruption> {
    let mut resurrected = Vec::new();
    let mut next = last.header.after;
    let mut kept = Vec::new();
    for found in files.drain(..).rev() {
        let after = found.header.after;
        if next.next() <= oldest || after == next {
            resurrected.push(found.header.sequence);
            continue;
        }
        if after.position >= next.position {
            return Err(found.damage(0, format!("it does not precede {}", last.path.display())));
        }
        next = after;
        kept.push(found);
    }
    kept.reverse();
    *files = kept;
    Ok(resurrected)
}

impl JournalFile {
    fn read(directory: &dyn Directory, sequence: u64, store: StoreId) -> Result<Self, OpenError> {
        let name = layout::file_name(sequence);
        let path = directory.path().join(&name);
        let file = directory.open(&name).map_err(|e| directory.failure("open", &name, e))?;
        let damage = |what: &str| LogCorruption { file: path.clone(), offset: 0, what: what.to_owned() };
        let Some(block) = read_block(&*file, &path, 0)? else {
            return Err(damage("the file is cut off within its header").into());
        };
        let header = match Header::decode(&block) {
            Ok(header) => header,
            Err(Some(found)) => return Err(OpenError::Newer { file: path, found }),
            Err(None) => return Err(damage("the file's header does not verify").into()),
        };
        if header.store != store {
            return Err(OpenError::OtherStore { file: path, found: header.store, expected: store });
        }
        if header.sequence != sequence {
            return Err(damage(&format!("the file was journal {} before", header.sequence)).into());
        }
        Ok(Self { header, file, path })
    }

    fn damage(&self, offset: u64, what: String) -> LogCorruption {
        LogCorruption { file: self.path.clone(), offset, what }
    }

    fn scan(&self) -> Result<Scan<'_>, Failure> {
        Scan::new(&*self.file, &self.path, &self.header)
    }

    /// Verifies a file that another one follows: everything up to the next file was acknowledged.
    fn verify_full(&self, next: &Header, visit: &mut EntryVisitor<'_>) -> Result<(), OpenError> {
        let mut scan = self.scan()?;
        while scan.head.position < next.after.position {
            visit(&scan.next()?);
        }
        if scan.head != next.after {
            let what = format!("{} does not follow it", layout::file_name(next.sequence));
            return Err(self.damage(scan.offset, what).into());
        }
        Ok(())
    }

    /// Verifies the last file; returns the newest entry and where it ends.
    fn verify_last(
        &self,
        covered: Slot,
        head: Option<Head>,
        recovery: &mut Recovery,
        visit: &mut EntryVisitor<'_>,
    ) -> Result<(Head, u64), OpenError> {
        let mut scan = self.scan()?;
        if scan.size != self.header.capacity {
            let what = format!("the file has {} bytes instead of {}", scan.size, self.header.capacity);
            return Err(self.damage(scan.size.min(self.header.capacity), what).into());
        }
        if covered.head.position < scan.head.position {
            return Err(self.damage(SLOTS[0], "its position slots belong to another file".to_owned()).into());
        }
        loop {
            let differs = |known: Head| scan.head.position == known.position && scan.head != known;
            if differs(covered.head) || head.is_some_and(differs) {
                let what = format!("position {} is not the entry that was acknowledged", scan.head.position);
                return Err(self.damage(scan.offset, what).into());
            }
            if head == Some(scan.head) {
                return Ok((scan.head, scan.offset));
            }
            match scan.next() {
                Ok(entry) => visit(&entry),
                Err(ScanError::Damaged(damage)) if head.is_none() => {
                    self.verify_tail(&mut scan, covered, damage, recovery)?;
                    return Ok((scan.head, scan.offset));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What does not verify is the torn end of the journal only if no slot covers it and no later batch
    /// follows.
    fn verify_tail(
        &self,
        scan: &mut Scan<'_>,
        covered: Slot,
        damage: LogCorruption,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let position = scan.head.next();
        if scan.head.position < covered.head.position {
            return Err(damage.into());
        }
        let remainder = scan.remainder()?;
        if let Some(later) = remainder.later {
            let what = format!("{}, but there is a later entry at byte {later}", damage.what);
            return Err(LogCorruption { what, ..damage }.into());
        }
        if covered.full {
            let what = format!(
                "the file that follows it, {}, is missing",
                layout::file_name(self.header.sequence + 1)
            );
            return Err(LogCorruption { what, ..damage }.into());
        }
        if remainder.written {
            recovery.dropped = Some(Dropped { file: self.path.clone(), offset: scan.offset, position });
        }
        Ok(())
    }

    /// The newest slot. At most one slot can be torn, since the other one was durable before it was
    /// written.
    fn newest_slot(&self, recovery: &mut Recovery) -> Result<Slot, OpenError> {
        let mut newest: Option<Slot> = None;
        for offset in SLOTS {
            let Some(block) = read_block(&*self.file, &self.path, offset)? else {
                return Err(self.damage(offset, "the file is cut off within its slots".to_owned()).into());
            };
            match Slot::decode(&block) {
                Some(slot) if slot.store == self.header.store => {
                    let rank = |slot: &Slot| (slot.head.position, slot.oldest, slot.full);
                    if newest.is_none_or(|newest| rank(&newest) <= rank(&slot)) {
                        newest = Some(slot);
                    }
                }
                _ => recovery.unreadable_slot = Some(self.path.clone()),
            }
        }
        newest.ok_or_else(|| self.damage(SLOTS[0], "neither position slot verifies".to_owned()).into())
    }

    /// Copies the batches up to `head`; returns where they end. Each is verified again: this read may come
    /// from the disk, and the earlier one may have come from the page cache.
    pub fn copy(&self, head: Head, to: &dyn File) -> Result<u64, OpenError> {
        let mut scan = self.scan()?;
        while scan.head != head {
            let offset = scan.offset;
            scan.next()?;
            to.write_all_at(scan.batch(), offset).map_err(|e| Failure::new("copy", &self.path, e))?;
        }
        Ok(scan.offset)
    }
}

/// Returns `None` if the file ends before the block does.
fn read_block(file: &dyn File, path: &Path, offset: u64) -> Result<Option<[u8; BLOCK]>, Failure> {
    let failure = |e| Failure::new("read", path, e);
    if file.size().map_err(failure)? < offset + BLOCK as u64 {
        return Ok(None);
    }
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, offset).map_err(failure)?;
    Ok(Some(block))
}
