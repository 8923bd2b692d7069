//! One journal file as it is known in memory.

use std::path::Path;

use super::{
    layout::{ENTRIES, Header},
    scan::Scan,
};
use crate::store::log::{Failure, Head, StoreId, files::File};

/// How many bytes a reader may have to pass over to reach a position, but for the batch that crosses.
const MARK_EVERY: u64 = 256 << 10;

pub(super) struct Segment {
    pub(super) sequence: u64,
    /// What the first entry in the file follows.
    pub(super) after: Head,
    /// Some of the batches, in order.
    marks: Vec<Mark>,
}

/// Where a batch begins and what it follows.
struct Mark {
    offset: u64,
    after: Head,
}

impl Segment {
    pub(super) fn new(header: &Header) -> Self {
        let after = header.after;
        Self { sequence: header.sequence, after, marks: vec![Mark { offset: ENTRIES, after }] }
    }

    /// Notes where the batch begins that follows `after`.
    pub(super) fn note(&mut self, offset: u64, after: Head) {
        if self.marks.last().is_none_or(|last| offset >= last.offset + MARK_EVERY) {
            self.marks.push(Mark { offset, after });
        }
    }

    /// A scan that begins at or before `position`, which the file has.
    pub(super) fn scan<'a>(
        &self,
        position: u64,
        file: &'a dyn File,
        path: &'a Path,
        store: StoreId,
    ) -> Result<Scan<'a>, Failure> {
        let behind = self.marks.partition_point(|mark| mark.after.position < position);
        let mark = &self.marks[behind.saturating_sub(1)];
        Scan::new(file, path, store, mark.offset, mark.after)
    }
}
