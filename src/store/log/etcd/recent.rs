//! The newest entries and the head, as received by a watch or a lost append. Applying them, or appending
//! after them, then needs no request.

use std::collections::VecDeque;

use super::connection::KnownHead;
use crate::store::log::Entry;

#[derive(Default)]
pub(super) struct Recent {
    /// Consecutive entries.
    entries: VecDeque<Entry>,
    bytes: usize,
    head: Option<KnownHead>,
}

/// Maximum bytes of operations. Older entries are read from etcd again.
const MAX_BYTES: usize = 4 << 20;

impl Recent {
    /// Adds an entry whose checksum the caller has verified.
    pub(super) fn add(&mut self, entry: Entry) {
        if let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) {
            let place = entry.position.checked_sub(first.position);
            let same = |place| self.entries.get(place).is_some_and(|known: &Entry| known.hash == entry.hash);
            if place.is_none_or(|place| usize::try_from(place).is_ok_and(same)) {
                return;
            }
            if entry.previous != last.hash {
                self.entries.clear();
                self.bytes = 0;
            }
        }
        self.bytes += entry.operations.len();
        self.entries.push_back(entry);
        while self.bytes > MAX_BYTES
            && self.entries.len() > 1
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.operations.len();
        }
    }

    /// Entries from `position` on: up to `bytes` of operations, but at least one. Empty if `position` is
    /// not held.
    pub(super) fn from(&self, position: u64, bytes: usize) -> Vec<Entry> {
        let first = self.entries.front().and_then(|first| position.checked_sub(first.position));
        let Some(skipped) = first.and_then(|skipped| usize::try_from(skipped).ok()) else {
            return Vec::new();
        };
        let mut left = bytes;
        let fits = |entry: &&Entry| {
            let fits = left > 0;
            left = left.saturating_sub(entry.operations.len());
            fits
        };
        self.entries.iter().skip(skipped).take_while(fits).cloned().collect()
    }

    /// The head put last, as far as it was received.
    pub(super) fn head(&self) -> Option<KnownHead> {
        self.head
    }

    pub(super) fn learn(&mut self, head: KnownHead) {
        if self.head.is_none_or(|known| known.revision < head.revision) {
            self.head = Some(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::EntryHash;

    fn entry(position: u64, own: u8) -> Entry {
        let (previous, hash) = (EntryHash([own - 1; 32]), EntryHash([own; 32]));
        Entry { position, previous, hash, operations: vec![0; 1000] }
    }

    #[test]
    fn entries_are_kept_in_order_and_without_gaps() {
        let mut recent = Recent::default();
        assert_eq!(recent.from(1, usize::MAX), []);
        for number in [5, 6, 5, 7, 3] {
            recent.add(entry(u64::from(number), number));
        }
        assert_eq!(recent.from(5, usize::MAX), [entry(5, 5), entry(6, 6), entry(7, 7)]);
        assert_eq!(recent.from(6, 1), [entry(6, 6)], "one at least");
        assert_eq!((recent.from(4, usize::MAX), recent.from(8, usize::MAX)), (vec![], vec![]));
        // A gap drops the entries before it.
        recent.add(entry(9, 9));
        assert_eq!((recent.from(7, usize::MAX), recent.from(9, usize::MAX)), (vec![], vec![entry(9, 9)]));
        // A different entry in the same place belongs to another history.
        recent.add(entry(9, 20));
        assert_eq!(recent.from(9, usize::MAX), [entry(9, 20)]);
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut recent = Recent::default();
        for number in 1..=5 {
            recent.add(Entry { operations: vec![0; MAX_BYTES / 2], ..entry(u64::from(number), number) });
        }
        assert_eq!(recent.from(4, usize::MAX).len(), 2);
        assert_eq!(recent.from(3, usize::MAX), []);
    }
}
