//! The in-memory index of one journal file.

use std::path::Path;

use super::{
    layout::{ENTRIES, Header},
    scan::Scan,
};
use crate::store::log::{Failure, Head, StoreId, files::File};

/// Maximum bytes that a reader skips to reach a position, plus one batch.
const MARK_EVERY: u64 = 256 << 10;

pub(super) struct Segment {
    pub(super) sequence: u64,
    /// The head that the first entry in the file follows.
    pub(super) after: Head,
    /// The places of some batches, in order.
    marks: Vec<Mark>,
}

/// Where a batch begins, and the head that it follows.
struct Mark {
    offset: u64,
    after: Head,
}

impl Segment {
    pub(super) fn new(header: &Header) -> Self {
        let after = header.after;
        Self { sequence: header.sequence, after, marks: vec![Mark { offset: ENTRIES, after }] }
    }

    /// Records where the batch after `after` begins.
    pub(super) fn mark(&mut self, offset: u64, after: Head) {
        if self.marks.last().is_none_or(|last| offset >= last.offset + MARK_EVERY) {
            self.marks.push(Mark { offset, after });
        }
    }

    /// A scan that begins at or before `position`, which the file must have.
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
