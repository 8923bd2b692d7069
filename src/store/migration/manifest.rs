//! The `format` file of the released layout: the store's id, and a revision that its history had reached.

use std::path::Path;

use crate::store::log::{
    Failure,
    files::{Directory as _, OsDirectory},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// UUIDv7 as text; the data has it as well.
    pub store: String,
    /// The data has at least this many commits. It was updated only now and then.
    pub revision: u64,
    /// Whether the data file was created.
    pub ready: bool,
}

pub(super) const FILE: &str = "format";
const TITLE: &str = "permgate store";
/// Makes the first release refuse the store: it reads format 1 only.
const MIGRATING: u32 = 2;

impl Manifest {
    /// `Ok(None)` if it was replaced by [`Manifest::write_migrating`]; `Err(Some(format))` if a newer
    /// permgate wrote it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Option<u32>> {
        let text = std::str::from_utf8(bytes).map_err(|_| None)?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(None);
        }
        let mut field = |key: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' '));
            value.ok_or(None)
        };
        // The format comes first: it determines what follows.
        match field("format")?.parse().map_err(|_| None)? {
            0 => return Err(None),
            1 => {}
            MIGRATING => return Ok(None),
            newer => return Err(Some(newer)),
        }
        let store = field("store")?.to_owned();
        let revision = field("revision")?.parse().map_err(|_| None)?;
        let ready = match field("state")? {
            "ready" => true,
            "creating" => false,
            _ => return Err(None),
        };
        Ok(Some(Self { store, revision, ready }))
    }

    /// Writes it as the first release did.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let state = if self.ready { "ready" } else { "creating" };
        let Self { store, revision, .. } = self;
        let text = format!("{TITLE}\nformat 1\nstore {store}\nrevision {revision}\nstate {state}\n");
        OsDirectory::new(directory).replace(FILE, &text)
    }

    /// Replaces the manifest while its store is migrated.
    pub(super) fn write_migrating(directory: &Path) -> Result<(), Failure> {
        OsDirectory::new(directory).replace(FILE, &format!("{TITLE}\nformat {MIGRATING}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_manifest_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = Manifest { store: "0199".to_owned(), revision: 12, ready: true };
        manifest.write(directory.path()).unwrap();
        let read = || std::fs::read(directory.path().join(FILE)).unwrap();
        let whole = read();
        assert_eq!(Manifest::parse(&whole), Ok(Some(manifest)));

        let check = |name: &str, bytes: &[u8], expected: Option<u32>| {
            assert_eq!(Manifest::parse(bytes), Err(expected), "{name}");
        };
        check("empty", b"", None);
        check("foreign", b"[core]\nbare = false\n", None);
        check("not text", &[0xff; 40], None);
        check("format 0", b"permgate store\nformat 0\n", None);
        check("newer, whatever follows", b"permgate store\nformat 9\nrows 3\n", Some(9));
        for end in 0..whole.len() - 1 {
            assert!(Manifest::parse(&whole[..end]).is_err(), "cut at {end}");
        }
        Manifest::write_migrating(directory.path()).unwrap();
        assert_eq!(Manifest::parse(&read()), Ok(None));
    }
}
