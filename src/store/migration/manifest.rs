//! The `format` file of the released layout: the store's id, and a revision that its history had reached.

use std::{fs, io, path::Path};

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

#[derive(Debug)]
pub(super) enum ReadManifestError {
    Absent,
    /// It was replaced by [`Manifest::write_migrating`].
    Migrating,
    Newer(u32),
    Malformed,
    Io(io::Error),
}

pub(super) const FILE: &str = "format";
const TITLE: &str = "permgate store";
/// Makes the first release refuse the store: it reads format 1 only.
const MIGRATING: u32 = 2;

impl Manifest {
    pub(super) fn read(directory: &Path) -> Result<Self, ReadManifestError> {
        match fs::read(directory.join(FILE)) {
            Ok(bytes) => Self::parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(ReadManifestError::Absent),
            Err(e) => Err(ReadManifestError::Io(e)),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ReadManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ReadManifestError::Malformed)?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(ReadManifestError::Malformed);
        }
        let mut field = |key: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' '));
            value.ok_or(ReadManifestError::Malformed)
        };
        // The format comes first: it determines what follows.
        let format: u32 = field("format")?.parse().map_err(|_| ReadManifestError::Malformed)?;
        match format {
            0 => return Err(ReadManifestError::Malformed),
            1 => {}
            MIGRATING => return Err(ReadManifestError::Migrating),
            newer => return Err(ReadManifestError::Newer(newer)),
        }
        let store = field("store")?.to_owned();
        let revision = field("revision")?.parse().map_err(|_| ReadManifestError::Malformed)?;
        let ready = match field("state")? {
            "ready" => true,
            "creating" => false,
            _ => return Err(ReadManifestError::Malformed),
        };
        Ok(Self { store, revision, ready })
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
        assert_eq!(Manifest::read(directory.path()).unwrap(), manifest);

        let whole = fs::read(directory.path().join(FILE)).unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let got = Manifest::parse(bytes).map_or_else(|e| format!("{e:?}"), |_| "ok".to_owned());
            assert_eq!(got, expected, "{name}");
        };
        check("whole", &whole, "ok");
        check("empty", b"", "Malformed");
        check("foreign", b"[core]\nbare = false\n", "Malformed");
        check("not text", &[0xff; 40], "Malformed");
        check("format 0", b"permgate store\nformat 0\n", "Malformed");
        check("newer, whatever follows", b"permgate store\nformat 9\nrows 3\n", "Newer(9)");
        for end in 0..whole.len() - 1 {
            assert!(Manifest::parse(&whole[..end]).is_err(), "cut at {end}");
        }
        Manifest::write_migrating(directory.path()).unwrap();
        assert!(matches!(Manifest::read(directory.path()), Err(ReadManifestError::Migrating)));
    }
}
