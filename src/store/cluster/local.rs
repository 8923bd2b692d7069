//! The file `cluster` in STORE, beside the generations. It marks STORE as one node's copy of a cluster's
//! store, which must not be opened as a store of its own.

use std::{fs, io, path::Path};

use super::Incarnation;
use crate::store::{
    generation::parse_id,
    log::{
        Failure, StoreId,
        files::{Directory as _, OsDirectory},
    },
};

/// Name in STORE.
const FILE: &str = "cluster";

/// Which store it is a copy of, and the node's last run that used it. That run has ended, since the lock is
/// free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalCopy {
    pub store: StoreId,
    pub last: Option<Incarnation>,
}

impl LocalCopy {
    /// Returns `None` if the directory is a store of its own, or empty.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, Failure> {
        let path = directory.join(FILE);
        let failure = |e| Failure::new("read", &path, e);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failure(e)),
        };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).and_then(parse_id);
        let Some(store) = field("store ") else {
            return Err(failure(io::Error::other(
                "it is damaged: move the directory away, and the node fetches the store again",
            )));
        };
        Ok(Some(Self { store, last: field("run ").map(|id| Incarnation(id.0)) }))
    }

    /// Durable on return.
    pub(crate) fn write(self, directory: &Path) -> Result<(), Failure> {
        let last = self.last.map(|last| format!("run {last}\n")).unwrap_or_default();
        let text = format!("permgate cluster 1\nstore {}\n{last}", self.store);
        OsDirectory::new(directory).replace(FILE, &text)
    }
}

/// Whether the directory is a node's copy, which must not be opened as a store of its own.
pub(crate) fn is_copy(directory: &Path) -> bool {
    directory.join(FILE).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_was_written_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(LocalCopy::read(directory.path()).unwrap(), None);
        for last in [None, Some(Incarnation([7; 16]))] {
            let copy = LocalCopy { store: StoreId([3; 16]), last };
            copy.write(directory.path()).unwrap();
            assert_eq!(LocalCopy::read(directory.path()).unwrap(), Some(copy));
        }
        fs::write(directory.path().join(FILE), "permgate cluster 1\nstore x\n").unwrap();
        assert!(LocalCopy::read(directory.path()).unwrap_err().to_string().contains("damaged"));
    }
}
