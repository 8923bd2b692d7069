//! The owner of a store's files. A gateway that runs as another user cannot open files that root has created in its
//! store.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use super::{
    failure::{Failure, print_stderr},
    hint::quoted,
};

/// A store that a command is about to open. Dropped after the store is closed, it warns about files of root in the
/// store of another user.
pub(super) struct StoreOwner {
    store: PathBuf,
    /// The other user. `None`: the store is root's, or this process is not root's.
    other: Option<String>,
}

impl StoreOwner {
    pub(super) fn detect(store: &Path) -> Self {
        let file = fs::metadata(store.join("CURRENT")).or_else(|_| fs::metadata(store));
        let other = file.ok().map(|file| file.uid()).filter(|uid| geteuid().is_root() && *uid != 0);
        Self { store: store.to_owned(), other: other.map(name) }
    }
}

impl Drop for StoreOwner {
    fn drop(&mut self) {
        if let Some(user) = &self.other
            && has_files_of_others(&self.store, |uid| uid == 0)
        {
            let store = self.store.display().to_string();
            print_stderr(&format!(
                "warning: the gateway of {user} cannot open what root has created in {store}"
            ));
            print_stderr(&format!("  give it back: chown -R {user} {}", quoted(&store)));
        }
    }
}

/// Adds to the failure to open a store what to do if files in it belong to another user.
pub(super) fn with_owner_advice(failure: Failure, store: &Path) -> Failure {
    let own = geteuid();
    if own.is_root() || !has_files_of_others(store, |uid| uid != own.as_raw()) {
        return failure;
    }
    let (user, store) = (name(own.as_raw()), store.display().to_string());
    failure.with_line(&format!("files of it are not {user}'s: as root, chown -R {user} {}", quoted(&store)))
}

/// Whether a file or directory below `directory` belongs to such a user. Does not follow links.
fn has_files_of_others(directory: &Path, is_other: impl Fn(u32) -> bool + Copy) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let Ok(metadata) = entry.metadata() else { return false };
        is_other(metadata.uid()) || metadata.is_dir() && has_files_of_others(&entry.path(), is_other)
    })
}

/// The user's name in `/etc/passwd`, else the id, which `chown` accepts as well.
fn name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_as_the_machine_does() {
        assert_eq!(name(0), "root");
        assert_eq!(name(u32::MAX - 7), (u32::MAX - 7).to_string());
    }

    #[test]
    fn files_of_others_are_found_at_any_depth() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("gen-1/sled")).unwrap();
        fs::write(directory.path().join("gen-1/sled/db"), "").unwrap();
        let own = geteuid().as_raw();
        assert!(has_files_of_others(directory.path(), |uid| uid == own));
        assert!(!has_files_of_others(directory.path(), |uid| uid != own));
    }
}
