//! Directories and files of the disk, as a process has them open.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Change, DirectoryEntries, Disk, Node, Weakness, no_power, write};
use crate::store::log::files::{Directory, File};

pub(super) struct OpenDirectory {
    pub(super) disk: Disk,
    pub(super) node: usize,
    pub(super) path: PathBuf,
}

impl OpenDirectory {
    fn file(&self, node: usize) -> Box<dyn File> {
        Box::new(OpenFile { disk: self.disk.clone(), node })
    }

    fn directory(&self, node: usize, name: &str) -> Box<dyn Directory> {
        Box::new(Self { disk: self.disk.clone(), node, path: self.path.join(name) })
    }
}

impl Directory for OpenDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.state().names(self.node)?.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let node = Node::File { cache: Vec::new(), durable: Vec::new(), pending: Vec::new() };
        let made = self.disk.state().make(self.node, name, node)?;
        Ok(self.file(made))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let found = self.disk.state().find(self.node, name)?;
        Ok(self.file(found))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        let node = state.find(self.node, from)?;
        state.change(self.node, Change::Rename(from.to_owned(), to.to_owned(), node))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        let node = state.find(self.node, name)?;
        state.change(self.node, Change::Unlink(name.to_owned(), node))
    }

    fn create_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let node = Node::Directory {
            cache: DirectoryEntries::new(),
            durable: DirectoryEntries::new(),
            pending: Vec::new(),
        };
        let made = self.disk.state().make(self.node, name, node)?;
        Ok(self.directory(made, name))
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let state = self.disk.state();
        let found = state.find(self.node, name)?;
        match state.nodes[found] {
            Node::Directory { .. } => Ok(self.directory(found, name)),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        let directory = self.open_directory(name)?;
        for child in directory.list()? {
            match directory.open_directory(&child) {
                Ok(_) => directory.remove_directory(&child)?,
                Err(_) => directory.remove(&child)?,
            }
        }
        self.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(self.node, Weakness::Directories)
    }
}

struct OpenFile {
    disk: Disk,
    node: usize,
}

impl File for OpenFile {
    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state();
        if state.off {
            return Err(no_power());
        }
        let Node::File { cache, .. } = &state.nodes[self.node] else { panic!("no file") };
        Ok(cache.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        if state.off {
            return Err(no_power());
        }
        let Node::File { cache, .. } = &state.nodes[self.node] else { panic!("no file") };
        let offset = offset as usize;
        let bytes = cache.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(kind) = state.refusal {
            return Err(kind.into());
        }
        let on = state.step()?;
        let Node::File { cache, pending, .. } = &mut state.nodes[self.node] else { panic!("no file") };
        write(cache, offset as usize, bytes);
        pending.push((offset as usize, bytes.to_vec()));
        if on { Ok(()) } else { Err(no_power()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().sync(self.node, Weakness::Batches)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.state().sync(self.node, Weakness::NewFiles)
    }
}
