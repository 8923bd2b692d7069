//! Puts entries in order that arrive by a watch, which may lose, duplicate and reorder them.

use crate::store::log::{Entry, Head};

/// How far a node has followed the log.
#[derive(Clone, Copy, Debug)]
pub struct Follower {
    head: Head,
}

/// How an entry relates to the position that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The next one: apply it.
    Next,
    /// One that was already followed.
    Duplicate,
    /// Entries are missing before it: read from this position.
    Gap { from: u64 },
}

/// The log differs from what this node followed: its engine was set back, or is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log at position {position} is not the one that this node has followed: etcd was restored from an older state, or replaced"
)]
pub struct Fork {
    pub position: u64,
}

impl Follower {
    pub fn new(head: Head) -> Self {
        Self { head }
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// Follows an entry, whose own checksums the caller has verified.
    pub fn follow(&mut self, entry: &Entry) -> Result<SequenceCheck, Fork> {
        let position = entry.position;
        if position > self.head.next() {
            return Ok(SequenceCheck::Gap { from: self.head.next() });
        }
        if position < self.head.next() {
            let same = position < self.head.position || entry.hash == self.head.hash;
            return if same { Ok(SequenceCheck::Duplicate) } else { Err(Fork { position }) };
        }
        if entry.previous != self.head.hash {
            return Err(Fork { position: self.head.position });
        }
        self.head = entry.head();
        Ok(SequenceCheck::Next)
    }

    /// Where to read from if `head` is the log's; `None` if nothing is missing. `floor` is the head that
    /// had been followed when `head` was requested.
    pub fn missing_from(&self, head: Head, floor: Head) -> Result<Option<u64>, Fork> {
        let forked = head.position < floor.position
            || (head.position == floor.position && head.hash != floor.hash)
            || (head.position == self.head.position && head.hash != self.head.hash);
        if forked {
            return Err(Fork { position: head.position.saturating_add(1).min(self.head.position) });
        }
        Ok((head.position > self.head.position).then(|| self.head.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::EntryHash;

    fn hash(number: u8) -> EntryHash {
        EntryHash([number; 32])
    }

    fn entry(position: u64, previous: u8, own: u8) -> Entry {
        Entry { position, previous: hash(previous), hash: hash(own), operations: Vec::new() }
    }

    #[test]
    fn entries_are_taken_in_order_and_once() {
        let check = |name: &str, entry: Entry, expected: Result<SequenceCheck, Fork>, head: u64| {
            let mut follower = Follower::new(Head { position: 7, hash: hash(7) });
            assert_eq!(follower.follow(&entry), expected, "{name}");
            assert_eq!(follower.head().position, head, "{name}");
        };
        check("the next", entry(8, 7, 8), Ok(SequenceCheck::Next), 8);
        check("the same again", entry(7, 6, 7), Ok(SequenceCheck::Duplicate), 7);
        check("an old one", entry(3, 2, 3), Ok(SequenceCheck::Duplicate), 7);
        check("one too far", entry(9, 8, 9), Ok(SequenceCheck::Gap { from: 8 }), 7);
        check("of another history", entry(8, 1, 8), Err(Fork { position: 7 }), 7);
        check("another one in its place", entry(7, 6, 1), Err(Fork { position: 7 }), 7);
    }

    #[test]
    fn a_head_is_ahead_known_or_of_another_history() {
        let follower = Follower::new(Head { position: 7, hash: hash(7) });
        let head = |position, number| Head { position, hash: hash(number) };
        assert_eq!(follower.missing_from(head(7, 7), head(7, 7)), Ok(None));
        assert_eq!(follower.missing_from(head(9, 9), head(7, 7)), Ok(Some(8)));
        assert_eq!(follower.missing_from(head(6, 6), head(5, 5)), Ok(None), "overtaken by the watch");
        assert!(follower.missing_from(head(6, 6), head(7, 7)).is_err(), "entries are lost");
        assert!(follower.missing_from(head(7, 1), head(5, 5)).is_err());
        assert!(follower.missing_from(head(5, 1), head(5, 5)).is_err());
    }
}
