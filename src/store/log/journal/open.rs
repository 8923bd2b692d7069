//! Opening: everything is verified, the newest file is copied into a new one and synced, and only then
//! is anything served. After a failed sync the page cache shows what the disk lacks; the copy is what
//! both have.

use std::path::{Path, PathBuf};

use super::{
    Journal, Options,
    create::{self, CreateError, NewFile},
    layout::{self, BLOCK, ENTRIES, Header, HeaderError, Name, SLOTS, Slot},
    scan::{Scan, ScanError},
    segment::Segment,
};
use crate::store::log::{
    Damage, Failure, Head, StoreId,
    files::{Directory, File},
};

/// Why a journal does not open, or is not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no journal in {directory}")]
    Absent { directory: PathBuf },
    #[error("there is a journal in {directory} already")]
    Exists { directory: PathBuf },
    #[error(
        "{file} has version {found}, this permgate reads {}; run the newer permgate that wrote it",
        layout::VERSION
    )]
    Newer { file: PathBuf, found: u32 },
    #[error("{file} belongs to the store {found}, not to {expected}; move the files of the other store away")]
    OtherStore { file: PathBuf, found: StoreId, expected: StoreId },
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error(transparent)]
    Io(#[from] Failure),
}

/// What opening found that an operator may want to know of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The batch that a crash tore.
    pub dropped: Option<Dropped>,
    /// The file with a position slot that does not verify. A power cut while the slot was written
    /// leaves one; so does damage, which lost nothing.
    pub unreadable_slot: Option<PathBuf>,
}

/// A batch that was dropped, whole: it was not acknowledged, unless a power cut and damage met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub file: PathBuf,
    /// In bytes from the start of the file.
    pub offset: u64,
    /// The position that it would have had, which the next entry gets.
    pub position: u64,
}

/// A file with a header that verifies.
struct Found {
    header: Header,
    file: Box<dyn File>,
    path: PathBuf,
}

impl Journal {
    /// Makes a journal whose first entry follows `after`: [`Head::EMPTY`] for a new store.
    pub fn create(
        directory: Box<dyn Directory>,
        store: StoreId,
        after: Head,
        options: Options,
    ) -> Result<Self, OpenError> {
        if !list(&*directory)?.0.is_empty() {
            return Err(OpenError::Exists { directory: directory.path().to_owned() });
        }
        let header = Header { store, sequence: 1, after, capacity: create::capacity(options.file_size, 0) };
        let slot = Slot { store, head: after, oldest: after.next(), full: false };
        let new = NewFile::new(&*directory, header, slot);
        let active = new.create(&mut create::empty).map_err(OpenError::from)?;
        Ok(Self {
            directory,
            options,
            store,
            full: Vec::new(),
            active,
            head: after,
            failed: None,
            buffer: Vec::new(),
        })
    }

    /// Opens the journal of `store`, reading all of it. What it found beside the entries is in the
    /// [`Recovery`].
    pub fn open(
        directory: Box<dyn Directory>,
        store: StoreId,
        options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        let (sequences, unfinished) = list(&*directory)?;
        let mut files = Vec::new();
        for sequence in sequences {
            files.push(Found::read(&*directory, sequence, store)?);
        }
        let Some(last) = files.pop() else {
            return Err(OpenError::Absent { directory: directory.path().to_owned() });
        };
        let mut recovery = Recovery::default();
        let covered = last.covered(&mut recovery)?;
        let leftovers = take_leftovers(&mut files, &last, covered.oldest)?;
        let first = files.first().unwrap_or(&last);
        let oldest = first.header.after.next();
        if oldest > covered.oldest {
            let began = covered.oldest;
            let what =
                format!("the journal began at position {began}, and the file before this one is missing");
            return Err(first.damage(0, what).into());
        }
        let mut full = Vec::new();
        for (at, found) in files.iter().enumerate() {
            let next = &files.get(at + 1).unwrap_or(&last).header;
            full.push(found.verify_full(next)?);
        }
        let (head, end) = last.verify_last(covered, &mut recovery)?;

        let sequence = last.header.sequence + 1;
        let capacity = create::capacity(options.file_size, end - ENTRIES);
        let header = Header { store, sequence, after: last.header.after, capacity };
        let new = NewFile::new(&*directory, header, Slot { store, head, oldest, full: false });
        let active = new.create(&mut |file, segment| last.copy(head, file, segment))?;
        let remove = |name: &str| {
            directory.remove(name).map_err(|e| Failure::new("remove", directory.path().join(name), e))
        };
        for sequence in leftovers.into_iter().chain([last.header.sequence]) {
            remove(&layout::file_name(sequence))?;
        }
        for name in unfinished.iter().filter(|name| **name != layout::unfinished_name(sequence)) {
            remove(name)?;
        }
        directory.sync().map_err(|e| Failure::new("sync the directory", directory.path(), e))?;
        let journal =
            Self { directory, options, store, full, active, head, failed: None, buffer: Vec::new() };
        Ok((journal, recovery))
    }
}

/// The numbers of the files in order, and the names of those that were never finished.
fn list(directory: &dyn Directory) -> Result<(Vec<u64>, Vec<String>), Failure> {
    let names = directory.list().map_err(|e| Failure::new("list the directory", directory.path(), e))?;
    let (mut sequences, mut unfinished) = (Vec::new(), Vec::new());
    for name in names {
        match Name::parse(&name) {
            Some(Name::File(sequence)) => sequences.push(sequence),
            Some(Name::Unfinished) => unfinished.push(name),
            None => {}
        }
    }
    sequences.sort_unstable();
    Ok((sequences, unfinished))
}

/// Takes out the files that are gone but for a crash, which may have brought them back: those with
/// nothing from `oldest` on, and those that a later one replaces, since it begins at the same position.
/// Returns their numbers.
fn take_leftovers(files: &mut Vec<Found>, last: &Found, oldest: u64) -> Result<Vec<u64>, Damage> {
    let mut leftovers = Vec::new();
    let mut next = last.header.after;
    let mut kept = Vec::new();
    for found in files.drain(..).rev() {
        let after = found.header.after;
        if next.next() <= oldest || after == next {
            leftovers.push(found.header.sequence);
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
    Ok(leftovers)
}

impl Found {
    fn read(directory: &dyn Directory, sequence: u64, store: StoreId) -> Result<Self, OpenError> {
        let name = layout::file_name(sequence);
        let path = directory.path().join(&name);
        let file = directory.open(&name).map_err(|e| Failure::new("open", &path, e))?;
        let damage = |what: &str| Damage { file: path.clone(), offset: 0, what: what.to_owned() };
        let Some(block) = read_block(&*file, &path, 0)? else {
            return Err(damage("the file is cut off within its header").into());
        };
        let header = match Header::decode(&block) {
            Ok(header) => header,
            Err(HeaderError::Version(found)) => return Err(OpenError::Newer { file: path, found }),
            Err(HeaderError::Invalid) => return Err(damage("the file's header does not verify").into()),
        };
        if header.store != store {
            return Err(OpenError::OtherStore { file: path, found: header.store, expected: store });
        }
        if header.sequence != sequence {
            return Err(damage(&format!("the file was journal {} once", header.sequence)).into());
        }
        Ok(Self { header, file, path })
    }

    fn damage(&self, offset: u64, what: String) -> Damage {
        Damage { file: self.path.clone(), offset, what }
    }

    fn scan(&self) -> Result<Scan<'_>, Failure> {
        Scan::new(&*self.file, &self.path, self.header.store, ENTRIES, self.header.after)
    }

    /// Everything up to where the next file begins was acknowledged.
    fn verify_full(&self, next: &Header) -> Result<Segment, OpenError> {
        let mut segment = Segment::new(&self.header);
        let mut scan = self.scan()?;
        while scan.head.position < next.after.position {
            segment.note(scan.offset, scan.head);
            scan.next()?;
        }
        if scan.head != next.after {
            let what = format!("{} does not follow it", layout::file_name(next.sequence));
            return Err(self.damage(scan.offset, what).into());
        }
        Ok(segment)
    }

    /// The newest entry and where it ends.
    fn verify_last(&self, covered: Slot, recovery: &mut Recovery) -> Result<(Head, u64), OpenError> {
        let mut scan = self.scan()?;
        if scan.size != self.header.capacity {
            let what = format!("the file has {} bytes instead of {}", scan.size, self.header.capacity);
            return Err(self.damage(scan.size.min(self.header.capacity), what).into());
        }
        if covered.head.position < scan.head.position {
            return Err(self.damage(SLOTS[0], "its position slots are of another file".to_owned()).into());
        }
        loop {
            if scan.head.position == covered.head.position && scan.head != covered.head {
                let what = format!("position {} is not the entry that was acknowledged", scan.head.position);
                return Err(self.damage(scan.offset, what).into());
            }
            match scan.next() {
                Ok(_) => {}
                Err(ScanError::Damaged(damage)) => {
                    self.judge_tail(&mut scan, covered, damage, recovery)?;
                    return Ok((scan.head, scan.offset));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What does not verify is the end of the journal only when no slot covers it and no later batch
    /// stands behind it.
    fn judge_tail(
        &self,
        scan: &mut Scan<'_>,
        covered: Slot,
        damage: Damage,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let position = scan.head.next();
        if scan.head.position < covered.head.position {
            return Err(damage.into());
        }
        let remainder = scan.remainder()?;
        if let Some(later) = remainder.later {
            let what = format!("{}, but a later entry stands at byte {later}", damage.what);
            return Err(Damage { what, ..damage }.into());
        }
        if covered.full {
            let what = format!(
                "the file that follows it, {}, is missing",
                layout::file_name(self.header.sequence + 1)
            );
            return Err(Damage { what, ..damage }.into());
        }
        if remainder.written {
            recovery.dropped = Some(Dropped { file: self.path.clone(), offset: scan.offset, position });
        }
        Ok(())
    }

    /// The newest slot. One slot may have been torn, never both: the other one
    /// was durable before it was written.
    fn covered(&self, recovery: &mut Recovery) -> Result<Slot, OpenError> {
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

    /// Copies the batches up to `head` and returns where they end. Each is verified once more: what is
    /// read now may come from the disk, and what was verified may have come from memory.
    fn copy(&self, head: Head, to: &dyn File, segment: &mut Segment) -> Result<u64, OpenError> {
        let mut scan = self.scan()?;
        while scan.head != head {
            let (offset, after) = (scan.offset, scan.head);
            scan.next()?;
            to.write_all_at(scan.batch(), offset).map_err(|e| Failure::new("copy", &self.path, e))?;
            segment.note(offset, after);
        }
        Ok(scan.offset)
    }
}

/// `None` when the file ends before the block does.
fn read_block(file: &dyn File, path: &Path, offset: u64) -> Result<Option<[u8; BLOCK]>, Failure> {
    let failure = |e| Failure::new("read", path, e);
    if file.size().map_err(failure)? < offset + BLOCK as u64 {
        return Ok(None);
    }
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, offset).map_err(failure)?;
    Ok(Some(block))
}

impl From<CreateError> for OpenError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::NotWritten(failure) | CreateError::Unsynced(failure) => Self::Io(failure),
        }
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damaged(damage) => Self::Damaged(damage),
            ScanError::Io(failure) => Self::Io(failure),
        }
    }
}
