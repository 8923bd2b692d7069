//! Reports when files may have changed. Their directories are watched, because files are replaced by renaming
//! and by changing symlinks. The receiver reads the files again and compares.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

/// The watched files. Without a file there is no watcher.
pub struct Watch {
    watcher: Mutex<Option<(RecommendedWatcher, HashSet<PathBuf>)>>,
    files: Arc<Mutex<HashSet<PathBuf>>>,
    sender: mpsc::UnboundedSender<()>,
}

/// The receiver of changes.
pub struct FileChanges {
    events: mpsc::UnboundedReceiver<()>,
    first: Option<Instant>,
    due: Option<Instant>,
}

/// A certificate and its key are written one after the other, so a change is reported after this pause.
const QUIET_PERIOD: Duration = Duration::from_millis(500);

/// A change is reported after this long, even if files are written all the time.
const MAX_DELAY: Duration = Duration::from_secs(3);

pub fn watch() -> (Watch, FileChanges) {
    let (sender, events) = mpsc::unbounded_channel();
    let watch = Watch { watcher: Mutex::default(), files: Arc::default(), sender };
    (watch, FileChanges { events, first: None, due: None })
}

impl Watch {
    /// Watches these files from now on, and no others.
    pub fn follow<'a>(&self, files: impl Iterator<Item = &'a PathBuf>) {
        let files: HashSet<PathBuf> = files.cloned().collect();
        let directories: HashSet<PathBuf> = files.iter().flat_map(|file| directories(file)).collect();
        *self.files.lock() = files;
        if let Err(error) = self.watch(directories) {
            tracing::warn!(%error, "failed to watch the certificate files: send SIGHUP after replacing them");
        }
    }

    fn watch(&self, wanted: HashSet<PathBuf>) -> notify::Result<()> {
        let mut watcher = self.watcher.lock();
        if wanted.is_empty() {
            *watcher = None;
            return Ok(());
        }
        let (watcher, present) = match &mut *watcher {
            Some(present) => present,
            none => none.insert((self.watcher()?, HashSet::new())),
        };
        for gone in present.difference(&wanted) {
            // The directory may be gone from the disk, too.
            let _ = watcher.unwatch(gone);
        }
        present.retain(|directory| wanted.contains(directory));
        for new in wanted {
            if !present.contains(&new) {
                watcher.watch(&new, RecursiveMode::NonRecursive)?;
                present.insert(new);
                // The files may have changed between the last look at them and now.
                let _ = self.sender.send(());
            }
        }
        Ok(())
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (files, sender) = (self.files.clone(), self.sender.clone());
        notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may hide a change.
            if event.map_or(true, |event| is_relevant(&event, &files)) {
                let _ = sender.send(());
            }
        })
    }
}

impl FileChanges {
    /// Waits until it is quiet again after a change. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) {
        loop {
            let due = self.due;
            tokio::select! {
                event = self.events.recv() => {
                    if event.is_none() {
                        std::future::pending::<()>().await;
                    }
                    let now = Instant::now();
                    let first = *self.first.get_or_insert(now);
                    self.due = Some((now + QUIET_PERIOD).min(first + MAX_DELAY));
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    (self.first, self.due) = (None, None);
                    return;
                }
            }
        }
    }
}

/// Returns the directory in which the file is named, and the one in which it really is.
fn directories(file: &Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    };
    [Some(parent(file)), real.as_deref().map(parent)].into_iter().flatten().collect()
}

/// Whether a watched file may have changed: it was written, or any file beside it was created, removed or
/// renamed, because a symlink that leads to it has another name.
fn is_relevant(event: &Event, files: &Mutex<HashSet<PathBuf>>) -> bool {
    match event.kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
        EventKind::Modify(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            let files = files.lock();
            let ours = |path: &PathBuf| files.iter().any(|file| file.file_name() == path.file_name());
            event.paths.iter().any(ours)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Nobody knows whether they changed after they were read and before their directory was watched.
    #[tokio::test]
    async fn files_are_read_again_once_their_directory_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tls.crt");
        std::fs::write(&file, "").unwrap();
        let (watch, mut changes) = watch();
        watch.follow([&file].into_iter());
        timeout(Duration::from_secs(10), changes.next()).await.expect("the directory is new");
        watch.follow([&file].into_iter());
        timeout(2 * QUIET_PERIOD, changes.next()).await.expect_err("nothing is new");
    }
}
