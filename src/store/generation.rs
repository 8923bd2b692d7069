//! Finds and replaces the directory in STORE that is the store. `CURRENT` names it as `gen-N`, and is
//! replaced by a rename within STORE. A new generation is built beside the old one and takes its place in
//! one step, even on a mount point or behind a symlink.
//!
//! A creation that was interrupted starts again, since `CURRENT` is written first. A directory with other
//! files never becomes a store.

use std::{io, path::PathBuf};

use super::log::{Failure, StoreId, files::Directory, random_id};

pub(crate) const CURRENT: &str = "CURRENT";
const UNFINISHED: &str = "CURRENT.new";
const PREFIX: &str = "gen-";
/// File systems create this in their root.
const LOST_AND_FOUND: &str = "lost+found";
/// Bytes that no `CURRENT` exceeds.
const MAX_SIZE: u64 = 4096;

/// Why STORE does not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error(
        "{directory} is not a permgate store: it has {names} and no CURRENT; name an empty directory as [store] path. If the file CURRENT was lost, move everything in the directory away and restore the newest backup with `permgate store restore`"
    )]
    NotAStore { directory: PathBuf, names: String },
    #[error(
        "{file} is damaged; move everything in its directory away and restore the newest backup with `permgate store restore`"
    )]
    Damaged { file: PathBuf },
    #[error(
        "{file} has version {found}, this permgate reads {VERSION}; run the newer permgate that wrote it"
    )]
    Newer { file: PathBuf, found: String },
    #[error(
        "{directory} is missing, but CURRENT names it; restore the newest backup with `permgate store restore`"
    )]
    Missing { directory: PathBuf },
    #[error(transparent)]
    Io(#[from] Failure),
}

const VERSION: &str = "1";

/// What STORE contains.
pub enum Contents {
    /// No store, or the remains of a creation that was interrupted.
    Empty,
    /// A whole store.
    Store { id: StoreId, directory: Box<dyn Directory> },
}

/// The directory STORE. The caller holds its lock.
pub struct Generations {
    store: Box<dyn Directory>,
    /// Whether a name belongs to the caller, as that of its lock does.
    is_own: fn(&str) -> bool,
}

/// A generation that is being built.
pub struct NewGeneration {
    /// The id of the store that it belongs to.
    pub id: StoreId,
    number: u64,
    /// Where its files go. The caller must sync the files before the switch.
    pub directory: Box<dyn Directory>,
}

/// The content of `CURRENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Current {
    id: StoreId,
    /// 0 while the first generation is being built.
    generation: u64,
}

impl Generations {
    /// `is_own` says which names in STORE belong to the caller, as that of its lock does.
    pub fn new(store: Box<dyn Directory>, is_own: fn(&str) -> bool) -> Self {
        Self { store, is_own }
    }

    /// Reads what STORE contains. Changes nothing.
    pub fn read(&self) -> Result<Contents, GenerationError> {
        match self.current()? {
            None => self.reject_foreign_files().map(|()| Contents::Empty),
            Some(Current { generation: 0, .. }) => Ok(Contents::Empty),
            Some(Current { id, generation }) => {
                let name = generation_name(generation);
                let directory = self.store.open_directory(&name).map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => {
                        GenerationError::Missing { directory: self.store.path().join(&name) }
                    }
                    _ => self.store.failure("open", &name, e).into(),
                })?;
                Ok(Contents::Store { id, directory })
            }
        }
    }

    /// Begins a generation beside the current one, or the first one of a new store. Generations that were
    /// begun before and never switched to are removed. The new one belongs to the store `id`, or else to
    /// the current store, or else to a new one.
    pub fn begin(&self, id: Option<StoreId>) -> Result<NewGeneration, GenerationError> {
        let current = match self.current()? {
            Some(current) => current,
            None => {
                self.reject_foreign_files()?;
                let id = random_id().map(StoreId);
                let id = id.map_err(|e| Failure::new("create an id for", self.store.path(), e))?;
                let current = Current { id, generation: 0 };
                self.write_current(current)?;
                current
            }
        };
        self.remove(|number| number > current.generation)?;
        let number = current.generation + 1;
        let name = generation_name(number);
        let directory =
            self.store.create_directory(&name).map_err(|e| self.store.failure("create", &name, e))?;
        Ok(NewGeneration { id: id.unwrap_or(current.id), number, directory })
    }

    /// Replaces the current generation by `new`, whose files must be synced, and removes the old one. After
    /// a failure, [`read`](Generations::read) says which of the two is the store; both are intact.
    pub fn switch(&self, new: &NewGeneration) -> Result<(), GenerationError> {
        self.make_current(new)?;
        self.remove(|number| number != new.number)
    }

    /// Like [`switch`](Generations::switch), but keeps the old generation until the next switch.
    pub fn switch_and_keep(&self, new: &NewGeneration) -> Result<(), GenerationError> {
        let replaced = self.current()?.map(|current| current.generation);
        self.make_current(new)?;
        self.remove(|number| number != new.number && Some(number) != replaced)
    }

    /// Removes a generation that was begun and not switched to. Before the first one, there was no `CURRENT`
    /// either.
    pub fn abandon(&self, new: &NewGeneration) -> Result<(), GenerationError> {
        self.remove(|number| number == new.number)?;
        if self.current()?.is_some_and(|current| current.generation == 0) {
            self.store.remove_file(CURRENT)?;
            self.store.sync_names()?;
        }
        Ok(())
    }

    fn make_current(&self, new: &NewGeneration) -> Result<(), GenerationError> {
        new.directory.sync_names()?;
        self.store.sync_names()?;
        self.write_current(Current { id: new.id, generation: new.number })
    }

    /// Removes the generations that match, and an unfinished `CURRENT`.
    fn remove(&self, is_gone: impl Fn(u64) -> bool) -> Result<(), GenerationError> {
        let mut removed = false;
        for name in self.store.names()? {
            if name == UNFINISHED {
                self.store.remove_file(&name)?;
            } else if parse_name(&name).is_some_and(&is_gone) {
                self.store.remove_directory(&name).map_err(|e| self.store.failure("remove", &name, e))?;
            } else {
                continue;
            }
            removed = true;
        }
        if removed {
            self.store.sync_names()?;
        }
        Ok(())
    }

    fn current(&self) -> Result<Option<Current>, GenerationError> {
        let file = match self.store.open(CURRENT) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.store.failure("open", CURRENT, e).into()),
        };
        let path = || self.store.path().join(CURRENT);
        let size = file.size().map_err(|e| self.store.failure("read the size of", CURRENT, e))?;
        if size > MAX_SIZE {
            return Err(GenerationError::Damaged { file: path() });
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact_at(&mut content, 0).map_err(|e| self.store.failure("read", CURRENT, e))?;
        match Current::decode(&content) {
            Ok(current) => Ok(Some(current)),
            Err(None) => Err(GenerationError::Damaged { file: path() }),
            Err(Some(found)) => Err(GenerationError::Newer { file: path(), found }),
        }
    }

    fn write_current(&self, current: Current) -> Result<(), GenerationError> {
        Ok(self.store.replace(CURRENT, &current.encode())?)
    }

    /// Fails if the directory has unknown files. Without `CURRENT`, they may be a store or someone else's.
    fn reject_foreign_files(&self) -> Result<(), GenerationError> {
        let mut names = self.store.names()?;
        names.retain(|name| name != UNFINISHED && name != LOST_AND_FOUND && !(self.is_own)(name));
        if names.is_empty() {
            return Ok(());
        }
        names.sort();
        names.truncate(5);
        Err(GenerationError::NotAStore { directory: self.store.path().to_owned(), names: names.join(", ") })
    }
}

fn generation_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn parse_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (generation_name(number) == name).then_some(number)
}

impl Current {
    /// Text, so that a person can read it.
    fn encode(self) -> String {
        let body = format!("permgate store {VERSION}\nid {}\ngeneration {}\n", self.id, self.generation);
        let checksum = blake3::hash(body.as_bytes());
        format!("{body}checksum {checksum}\n")
    }

    /// `Err(Some(version))` if another version wrote it.
    fn decode(content: &[u8]) -> Result<Self, Option<String>> {
        let text = std::str::from_utf8(content).map_err(|_| None)?;
        let checksum = text.find("checksum ").ok_or(None)?;
        let (body, end) = text.split_at(checksum);
        if end != format!("checksum {}\n", blake3::hash(body.as_bytes())) {
            return Err(None);
        }
        let mut lines = body.lines();
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        let version = field("permgate store ").ok_or(None)?;
        if version != VERSION {
            return Err(Some(version.to_owned()));
        }
        let id = field("id ").and_then(parse_id).ok_or(None)?;
        let generation = field("generation ").and_then(|number| number.parse().ok()).ok_or(None)?;
        Ok(Self { id, generation })
    }
}

/// Parses the id of a store, which the first release wrote with hyphens.
pub(crate) fn parse_id(text: &str) -> Option<StoreId> {
    uuid::Uuid::try_parse(text).ok().map(|id| StoreId(id.into_bytes()))
}

#[cfg(test)]
mod tests;
