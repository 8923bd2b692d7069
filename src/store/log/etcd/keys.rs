//! The keys under the prefix, and the encoding of `head`.

use crate::store::log::{EntryHash, Head, StoreId, entry::array};

/// Keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// The value of `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadRecord {
    pub head: Head,
    pub store: StoreId,
    /// The position of the oldest entry that may be read.
    pub first: u64,
}

/// A key that a watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Log(u64),
    Ack(&'a str),
    Head,
    Other,
}

impl Keys {
    /// Takes a prefix with or without a `/` at its end.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn head(&self) -> Vec<u8> {
        self.key("head")
    }

    /// The keys sort by position.
    pub(super) fn log(&self, position: u64) -> Vec<u8> {
        [self.key("log/"), position.to_be_bytes().to_vec()].concat()
    }

    /// Pieces sort by the position of their entry, so that one range deletes those that are trimmed,
    /// including the pieces of failed attempts.
    pub(super) fn part(&self, position: u64, attempt: [u8; 16], number: u32) -> Vec<u8> {
        [self.parts(position), attempt.to_vec(), number.to_be_bytes().to_vec()].concat()
    }

    /// The start of the range of pieces for this position and later ones.
    pub(super) fn parts(&self, position: u64) -> Vec<u8> {
        [self.key("part/"), position.to_be_bytes().to_vec()].concat()
    }

    pub(super) fn ack(&self, node: &str) -> Vec<u8> {
        self.key(&format!("ack/{node}"))
    }

    pub(super) fn acks(&self) -> (Vec<u8>, Vec<u8>) {
        (self.key("ack/"), self.key("ack0"))
    }

    /// A key that never exists.
    pub(super) fn absent_key(&self) -> Vec<u8> {
        self.key("probe")
    }

    /// One range that covers acknowledgements, head and log.
    pub(super) fn watch_range(&self) -> (Vec<u8>, Vec<u8>) {
        (self.key("ack/"), self.key("log0"))
    }

    pub(super) fn parse<'a>(&self, key: &'a [u8]) -> Key<'a> {
        let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else { return Key::Other };
        if let Some(position) = rest.strip_prefix(b"log/") {
            return position.try_into().map_or(Key::Other, |bytes| Key::Log(u64::from_be_bytes(bytes)));
        }
        if rest == b"head" {
            return Key::Head;
        }
        let node = rest.strip_prefix(b"ack/").and_then(|node| std::str::from_utf8(node).ok());
        node.map_or(Key::Other, Key::Ack)
    }

    pub(super) fn key(&self, name: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), name.as_bytes()].concat()
    }
}

const VERSION: u8 = 1;

impl HeadRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { head, store, first } = self;
        let (position, first) = (head.position.to_le_bytes(), first.to_le_bytes());
        [&[VERSION][..], &position, &head.hash.0, &store.0, &first].concat()
    }

    /// `Err` says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() == 65 => Ok(Self {
                head: Head {
                    position: u64::from_le_bytes(array(bytes, 1)),
                    hash: EntryHash(array(bytes, 9)),
                },
                store: StoreId(array(bytes, 41)),
                first: u64::from_le_bytes(array(bytes, 57)),
            }),
            Some(&version) if version > VERSION => {
                Err(format!("it has version {version}, which only a newer permgate can read"))
            }
            _ => Err("it is not the head of a permgate log".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let keys = Keys::new("/permgate/");
        assert_eq!(keys.prefix(), Keys::new("/permgate").prefix());
        assert_eq!(keys.parse(&keys.log(7)), Key::Log(7));
        assert_eq!(keys.parse(&keys.ack("gate-1")), Key::Ack("gate-1"));
        assert_eq!(keys.parse(&keys.head()), Key::Head);
        assert_eq!(keys.parse(b"/permgate/log/7"), Key::Other, "not eight bytes");
        assert_eq!(keys.parse(b"/other/log/12345678"), Key::Other);
        assert!(keys.log(255) < keys.log(256));
        let (start, end) = keys.watch_range();
        assert!(
            [keys.log(u64::MAX), keys.ack("z"), keys.head()].iter().all(|key| (&start..&end).contains(&key))
        );
        assert!(!(&start..&end).contains(&&keys.part(1, [0; 16], 0)));
        assert!((keys.parts(3)..keys.parts(4)).contains(&keys.part(3, [255; 16], 9)));
    }

    #[test]
    fn the_head_reads_as_it_was_written() {
        let head = Head { position: 7, hash: EntryHash([9; 32]) };
        let record = HeadRecord { head, store: StoreId([3; 16]), first: 4 };
        let mut bytes = record.encode();
        assert_eq!(HeadRecord::decode(&bytes), Ok(record));
        assert!(HeadRecord::decode(&bytes[1..]).is_err());
        assert!(HeadRecord::decode(b"").is_err());
        bytes[0] = 2;
        assert!(HeadRecord::decode(&bytes).unwrap_err().contains("newer"));
    }
}
