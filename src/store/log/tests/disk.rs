//! A disk in memory that separates what a process sees (the cache), what survives a power cut, and the
//! changes in between. A cut keeps any sectors of what was not synced, in any order.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use super::Random;
use crate::store::log::files::Directory;
use handles::OpenDirectory;

mod handles;

/// A handle; all clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

/// A fault of this disk, or of its user, that the simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakness {
    None,
    /// `fdatasync`, which makes a batch durable, does nothing.
    Batches,
    /// `fsync` of files, which makes a new file durable before it gets its name, does nothing.
    NewFiles,
    /// Syncs of directories do nothing.
    Directories,
}

#[derive(Clone)]
struct State {
    nodes: Vec<Node>,
    sector: usize,
    weakness: Weakness,
    random: Random,
    /// Changes and syncs until the power is cut.
    until_cut: Option<usize>,
    /// Syncs until the power is cut.
    until_cut_sync: Option<usize>,
    off: bool,
    /// Syncs until one fails.
    until_failure: Option<usize>,
    /// The error of creating and writing files from now on.
    refusal: Option<io::ErrorKind>,
}

#[derive(Clone)]
enum Node {
    File { cache: Vec<u8>, durable: Vec<u8>, pending: Vec<(usize, Vec<u8>)> },
    Directory { cache: DirectoryEntries, durable: DirectoryEntries, pending: Vec<Change> },
}

type DirectoryEntries = BTreeMap<String, usize>;

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String, usize),
}

impl Change {
    fn apply(&self, names: &mut DirectoryEntries) {
        match self {
            Self::Link(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Rename(from, to, node) => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            Self::Unlink(name, node) => {
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
        }
    }
}

/// How much of the unsynced changes a cut keeps.
#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    All,
    /// The first few changes.
    Prefix(usize),
    Any,
    /// Any sectors, some of them partially.
    Shorn,
}

impl Kept {
    fn draw(random: &mut Random, changes: usize) -> Self {
        match random.below(8) {
            0 => Self::Nothing,
            1 => Self::All,
            2 => Self::Prefix(random.below(changes + 1)),
            3 | 4 => Self::Any,
            _ => Self::Shorn,
        }
    }

    fn keeps(self, change: usize, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Prefix(count) => change < count,
            Self::Any | Self::Shorn => random.one_in(2),
        }
    }
}

impl Disk {
    pub(crate) fn new(sector: usize, weakness: Weakness, seed: u64) -> Self {
        let root = Node::Directory {
            cache: DirectoryEntries::new(),
            durable: DirectoryEntries::new(),
            pending: Vec::new(),
        };
        Self(Arc::new(Mutex::new(State {
            nodes: vec![root],
            sector,
            weakness,
            random: Random(seed),
            until_cut: None,
            until_cut_sync: None,
            off: false,
            until_failure: None,
            refusal: None,
        })))
    }

    pub(crate) fn root(&self) -> Box<dyn Directory> {
        Box::new(OpenDirectory { disk: self.clone(), node: 0, path: PathBuf::from("/disk") })
    }

    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Gives the disk's random choices a new seed.
    pub(crate) fn reseed(&self, seed: u64) {
        self.state().random = Random(seed);
    }

    /// Cuts the power at the `n`th change or sync from now on, which may be kept in part.
    pub(crate) fn cut_after(&self, n: usize) {
        self.state().until_cut = Some(n);
    }

    /// Cuts the power at the `n`th sync from now on.
    pub(crate) fn cut_at_sync(&self, n: usize) {
        self.state().until_cut_sync = Some(n);
    }

    /// Fails the `n`th sync from now on. What it leaves out is never written later.
    pub(crate) fn fail_sync_after(&self, n: usize) {
        self.state().until_failure = Some(n);
    }

    /// Makes all writing fail, or work again.
    pub(crate) fn refuse_writes(&self, kind: Option<io::ErrorKind>) {
        self.state().refusal = kind;
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state().off
    }

    /// Ends the process; the content of the cache stays.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        (state.off, state.until_cut, state.until_cut_sync) = (false, None, None);
    }

    /// Cuts the power and turns it on again; only what the disk has is left.
    pub(crate) fn power_cut(&self) {
        self.cut(None);
    }

    /// Cuts the power, and leaves some of the sectors that were being written in part.
    pub(crate) fn shearing_power_cut(&self) {
        self.cut(Some(Kept::Shorn));
    }

    fn cut(&self, kept: Option<Kept>) {
        let mut state = self.state();
        (state.off, state.until_cut, state.until_cut_sync) = (false, None, None);
        let State { nodes, random, sector, .. } = &mut *state;
        for node in nodes {
            node.persist_some(*sector, random, kept);
            node.forget_cache();
        }
    }

    /// Changes a file by `edit`, both in the cache and on the disk.
    pub(crate) fn edit(&self, path: &str, edit: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let mut at = 0;
        for name in path.split('/') {
            let Node::Directory { cache, .. } = &state.nodes[at] else {
                panic!("no directory before {name}")
            };
            at = cache[name];
        }
        let Node::File { cache, durable, pending } = &mut state.nodes[at] else {
            panic!("{path} is no file")
        };
        edit(cache);
        pending.clear();
        *durable = cache.clone();
    }

    /// The content of a file in the root, as a process sees it.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let Node::Directory { cache: names, .. } = &state.nodes[0] else { panic!("the root is a directory") };
        let Node::File { cache, .. } = &state.nodes[names[name]] else { panic!("{name} is no file") };
        cache.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Whether this step happens before the power is cut. Fails if the power is off.
    fn step(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(no_power());
        }
        if let Some(left) = &mut self.until_cut {
            if *left <= 1 {
                self.off = true;
                return Ok(false);
            }
            *left -= 1;
        }
        Ok(true)
    }

    fn sync(&mut self, node: usize, without: Weakness) -> io::Result<()> {
        if !self.step()? {
            return Err(no_power());
        }
        if let Some(left) = &mut self.until_cut_sync {
            *left -= 1;
            if *left == 0 {
                self.off = true;
                return Err(no_power());
            }
        }
        let State { nodes, random, sector, weakness, until_failure, .. } = self;
        let node = &mut nodes[node];
        if let Some(left) = until_failure {
            *left -= 1;
            if *left == 0 {
                *until_failure = None;
                node.persist_some(*sector, random, None);
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        if *weakness != without {
            node.persist_all();
        }
        Ok(())
    }

    fn change(&mut self, directory: usize, change: Change) -> io::Result<()> {
        let on = self.step()?;
        let Node::Directory { cache, pending, .. } = &mut self.nodes[directory] else {
            panic!("no directory")
        };
        change.apply(cache);
        pending.push(change);
        if on { Ok(()) } else { Err(no_power()) }
    }

    fn names(&self, directory: usize) -> io::Result<&DirectoryEntries> {
        if self.off {
            return Err(no_power());
        }
        let Node::Directory { cache, .. } = &self.nodes[directory] else { panic!("no directory") };
        Ok(cache)
    }

    fn find(&self, directory: usize, name: &str) -> io::Result<usize> {
        self.names(directory)?.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn make(&mut self, directory: usize, name: &str, node: Node) -> io::Result<usize> {
        if self.names(directory)?.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(kind) = self.refusal {
            return Err(kind.into());
        }
        self.nodes.push(node);
        let made = self.nodes.len() - 1;
        self.change(directory, Change::Link(name.to_owned(), made))?;
        Ok(made)
    }
}

impl Node {
    fn persist_all(&mut self) {
        match self {
            Self::File { cache, durable, pending } => {
                // Not the whole cache: what a failed sync left out stays out.
                for (offset, bytes) in pending.drain(..) {
                    write(durable, offset, &bytes);
                }
                grow(durable, cache.len());
            }
            Self::Directory { durable, pending, .. } => {
                pending.drain(..).for_each(|change| change.apply(durable));
            }
        }
    }

    fn persist_some(&mut self, sector: usize, random: &mut Random, kept: Option<Kept>) {
        match self {
            Self::File { durable, pending, .. } => {
                let kept = kept.unwrap_or_else(|| Kept::draw(random, pending.len()));
                let end = pending.iter().map(|(offset, bytes)| offset + bytes.len()).max().unwrap_or(0);
                for (change, (offset, bytes)) in pending.drain(..).enumerate() {
                    let mut at = 0;
                    while at < bytes.len() {
                        let next = bytes.len().min(at + sector - (offset + at) % sector);
                        if kept.keeps(change, random) {
                            let shorn = matches!(kept, Kept::Shorn) && random.one_in(2);
                            // Often early, where the significant bytes of a small change are.
                            let bound = if random.one_in(2) { 128 } else { next - at };
                            let to = if shorn { at + random.below(bound.min(next - at)) } else { next };
                            write(durable, offset + at, &bytes[at..to]);
                        }
                        at = next;
                    }
                }
                // The size may be there without the data.
                if random.one_in(2) {
                    grow(durable, end);
                }
            }
            Self::Directory { durable, pending, .. } => {
                let kept = kept.unwrap_or_else(|| Kept::draw(random, pending.len()));
                for (at, change) in pending.drain(..).enumerate() {
                    if kept.keeps(at, random) {
                        change.apply(durable);
                    }
                }
            }
        }
    }

    fn forget_cache(&mut self) {
        match self {
            Self::File { cache, durable, .. } => cache.clone_from(durable),
            Self::Directory { cache, durable, .. } => cache.clone_from(durable),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    grow(content, end);
    content[offset..end].copy_from_slice(bytes);
}

/// Like `resize`, which is slow without optimisation.
fn grow(content: &mut Vec<u8>, size: usize) {
    content.append(&mut vec![0; size.saturating_sub(content.len())]);
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}
