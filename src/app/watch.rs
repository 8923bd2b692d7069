//! Finds out when files have changed, by looking at them again and again. That works on every file system,
//! and whether a file was written, renamed or put behind another symlink.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

/// How often the files are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The longest time for which a change is held back while files go on changing, in looks.
const MAX_LOOKS: u32 = 6;

/// Each file's device, inode, time of its last change and size, which tells apart what changes within a second,
/// where times have no fractions. `None`: it cannot be read.
type Versions = BTreeMap<PathBuf, Option<(u64, u64, i64, i64, u64)>>;

/// What was seen of the files. New files have changed, because they may have since they were read.
#[derive(Default)]
pub struct Watch {
    /// The versions that were reported last.
    reported: Versions,
    last: Versions,
    /// How many looks have shown a change that is not reported yet.
    looks: u32,
}

impl Watch {
    /// Whether the files are to be read again: they have changed, and not since the last look, because a
    /// certificate and its key are written one after the other.
    pub fn has_changed(&mut self, found: Versions) -> bool {
        let is_quiet = found == self.last;
        self.last = found;
        if self.last == self.reported {
            self.looks = 0;
            return false;
        }
        self.looks += 1;
        let is_due = is_quiet || self.looks == MAX_LOOKS;
        if is_due {
            self.reported = self.last.clone();
            self.looks = 0;
        }
        is_due
    }
}

/// Blocks: the disk may hang.
pub fn versions(files: Vec<PathBuf>) -> Versions {
    let version = |file: &PathBuf| {
        let file = fs::metadata(file).ok()?;
        Some((file.dev(), file.ino(), file.ctime(), file.ctime_nsec(), file.size()))
    };
    files.into_iter().map(|file| (file.clone(), version(&file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody knows whether they changed after they were read and before they were looked at.
    #[test]
    fn files_are_read_again_once_they_are_new_and_when_they_change() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("1.crt"), directory.path().join("tls.crt"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::write(&file, "").unwrap();
        let mut watch = Watch::default();
        let mut look = || watch.has_changed(versions(vec![link.clone()]));
        assert_eq!([look(), look(), look()], [false, true, false], "the file is new");
        let other = directory.path().join("2.crt");
        fs::write(&other, "").unwrap();
        assert!(!look(), "another file");
        fs::rename(&other, &file).unwrap();
        assert_eq!([look(), look(), look()], [false, true, false], "behind the link is another file");
        fs::remove_file(&link).unwrap();
        assert_eq!([look(), look(), look()], [false, true, false], "the link is gone");
    }

    #[test]
    fn files_that_go_on_changing_are_read_again_too() {
        let mut watch = Watch::default();
        let mut look = |time| watch.has_changed([("tls.crt".into(), Some((1, 1, time, 0, 0)))].into());
        let seen: Vec<bool> = (1..=i64::from(MAX_LOOKS) + 1).map(&mut look).collect();
        assert_eq!(seen.iter().position(|changed| *changed), Some(5), "{seen:?}");
    }
}
